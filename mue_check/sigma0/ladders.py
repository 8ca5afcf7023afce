"""Ladders of the sigma_0 laboratory: loads of one mixture, what else moves sigma_0, and where gamma is measured.

Drifts are asked where the optimum is sharp and follows the batch at fixed steps, as it must if it is to follow sigma_0
(docs/choices.md).
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from mue_check.axes.ladder import Ladder, Question, Rung
from mue_check.axes.scale import dense
from mue_check.axes.sizes import Sizes
from mue_check.errors import SpecError
from mue_check.routing.variants import get_variant
from mue_check.spec import Experts, ModelSpec, Scenario, parse_scenario

SIGMA0 = "sigma0"
HELDOUT_LOADS = "load_heldout"
"""The ladder of loads on which the budget is tried and which no fit sees."""
SCALED_LOADS = "load_scaled"
"""The causal probe: the same loads, with each expert's update scaled by its load."""
BLIND_LOADS = "load_content_blind"
LoadUse = Literal["fit", "heldout", "probe"]
LOADS = "load"
LEARNED_LOADS = (LOADS, HELDOUT_LOADS)
"""The ladders of loads of learned routing."""
UNIFORM, NATURAL = "uniform", "natural"
_SCALED = "-scaled-"


def sigma0_ladders(sizes: Sizes) -> tuple[Ladder, ...]:
    """All of them; an empty tuple of sizes leaves its ladder out."""
    return (*_load_ladders(sizes), *_other_ladders(sizes), *_noise_ladders(sizes))


def load_use(ladder: str) -> LoadUse:
    """What the drifts of the ladder of that name are for: a fit, or one of the two that it must not see."""
    return {HELDOUT_LOADS: "heldout", SCALED_LOADS: "probe"}.get(ladder, "fit")  # type: ignore[return-value]


def load_label(load: str) -> str:
    """What people call a load, fit for a test's id: zipf-0_5; a vector by its hash."""
    text = load.replace(":", "-").replace(".", "_")
    return text if re.fullmatch(r"[\w-]+", text) else f"load-{hashlib.sha256(load.encode()).hexdigest()[:6]}"


def probed_load(label: str) -> tuple[str, float]:
    """The load and the strength of the causal probe of a rung: zipf-1-scaled-0_5 is (zipf-1, 0.5), zipf-1 has 0."""
    scaled = re.fullmatch(rf"(.+){_SCALED}(\d+(?:_\d+)?)", label)
    return (scaled[1], float(scaled[2].replace("_", "."))) if scaled else (label, 0.0)


def steered(experts: Experts, load: str) -> Experts:
    """The same experts with that target load; SpecError where it is not feasible."""
    balance = "selection_bias" if get_variant(experts.router).scored else "none"
    return replace(experts, load=load, balance=balance)


def _mixture(sizes: Sizes, experts: Experts) -> ModelSpec:
    return ModelSpec(width=sizes.width, depth=sizes.depth, feed_forward=experts)


def _usual(sizes: Sizes, router: str = "sigmoid_norm") -> Experts:
    """Two of 16 experts of half the width: the active width is the model's."""
    return Experts(total=16, activated=2, hidden=sizes.width // 2, router=router)


def _load_ladders(sizes: Sizes) -> Iterator[Ladder]:
    for name, router, loads in (
        (LOADS, "sigmoid_norm", sizes.loads),
        (BLIND_LOADS, "content_blind", sizes.blind_loads),
        (HELDOUT_LOADS, "sigmoid_norm", sizes.heldout_loads),
    ):
        experts = _usual(sizes, router)
        rungs = [
            Rung(label=load_label(load), size=i + 1, model=_mixture(sizes, steered(experts, load)))
            for i, load in enumerate((UNIFORM, *loads))
        ]
        if loads:
            yield _drift_ladder(name, rungs)
        if loads and name == LOADS:
            probed = [rung for rung in rungs if rung.load in sizes.scaled_loads]
            scaled = [_scaled(rung, strength) for rung in probed for strength in (0.5, 1.0)]
            if scaled:
                places = [replace(rung, size=i + 2) for i, rung in enumerate(scaled)]
                yield _drift_ladder(SCALED_LOADS, [rungs[0], *places])


def _scaled(rung: Rung, strength: float) -> Rung:
    label = f"{rung.label}{_SCALED}{strength:g}".replace(".", "_")
    return replace(rung, label=label, load_scaling=strength)


def _other_ladders(sizes: Sizes) -> Iterator[Ladder]:
    """Batch at fixed steps moves sigma_0 by k^-1/2 alone, activated experts and capacity as Bridge II does."""
    even = _mixture(sizes, steered(_usual(sizes), UNIFORM))
    first = Rung(label=UNIFORM, size=1, model=even)
    batches = [Rung(label=f"x{k}", size=k, model=even, batch=k, steps=1) for k in sizes.sigma0_batches]
    if batches:
        yield _drift_ladder("sigma0_batch", [first, *batches])

    def rung(size: int, **changes: int) -> Rung:
        experts = steered(replace(_usual(sizes), **changes), UNIFORM)  # type: ignore[arg-type]  # all are whole numbers
        return Rung(label=experts.notation, size=size, model=_mixture(sizes, experts))

    activated = [rung(a, activated=a) for a in sizes.sigma0_activated]
    if activated:
        reference = Rung(label="dense", size=1, model=dense(sizes.width, sizes.depth))
        yield _drift_ladder("sigma0_activated", [reference, *activated])
    capacities = [rung(n, total=n) for n in sizes.sigma0_capacities]
    if capacities:
        yield _drift_ladder("sigma0_capacity", [rung(8, total=8), *capacities])


def _drift_ladder(name: str, rungs: list[Rung]) -> Ladder:
    return Ladder.of(rungs, axis=SIGMA0, name=name, asks=["drift"])


def _noise_ladders(sizes: Sizes) -> Iterator[Ladder]:
    """One mixture each: the dense reference of its hyperparameters, then the mixture under each feasible load.

    A router that cannot be steered, or that is asked with a balance of its own, has the load that it has.
    """
    default = Scenario(model=dense(sizes.width, sizes.depth))
    reference = Rung(label="dense", size=1, model=default.model)
    asks: list[Question] = ["noise"]
    for text in sizes.noise_mixtures:
        model = parse_scenario(text, default=default).model
        experts = model.feed_forward
        assert isinstance(experts, Experts)
        router = experts.router if experts.balance == "none" else f"{experts.router}-{experts.balance}"
        natural = "balance=" in text or experts.router == "expert_choice"
        name = f"noise-d{model.width}-{experts.notation}-{router}" + ("-natural" if natural else "")
        if natural:
            targets = [Rung(label=NATURAL, size=2, model=model)]
        else:
            feasible = [load for load in (UNIFORM, *sizes.noise_loads) if _feasible(experts, load)]
            targets = [
                Rung(label=load_label(load), size=i + 2, model=replace(model, feed_forward=steered(experts, load)))
                for i, load in enumerate(feasible)
            ]
        yield Ladder.of([reference, *targets], axis=SIGMA0, name=name, asks=asks)


def _feasible(experts: Experts, load: str) -> bool:
    try:
        steered(experts, load)
    except SpecError:
        return False
    return True
