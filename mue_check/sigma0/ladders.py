"""Ladders of the sigma_0 laboratory: loads of one mixture, other changes that move sigma_0, and mixtures for gamma.

Drifts are measured in the regime where the optimum is sharp and follows the batch at fixed steps, as it must if it
follows sigma_0 (docs/choices.md).
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from mue_check.axes.ladder import Ladder, Rung
from mue_check.axes.scale import dense
from mue_check.axes.sizes import Sizes
from mue_check.errors import SpecError
from mue_check.routing.variants import get_variant
from mue_check.sigma0.laboratory import Laboratory
from mue_check.spec import Experts, ModelSpec, Scenario
from mue_check.spec_text import parse_scenario

SIGMA0 = "sigma0"
LOADS, BLIND_LOADS = "load", "load_content_blind"
HELDOUT_LOADS = "load_heldout"
"""The loads on which the drift budget is tested; no fit uses them."""
PROBED_LOADS = "load_scaled"
"""The causal probe: some of the loads once more, with each expert's update scaled by its load."""
LEARNED_LOADS = (LOADS, HELDOUT_LOADS)
BATCHES, ACTIVATED, CAPACITIES = "sigma0_batch", "sigma0_activated", "sigma0_capacity"
UNIFORM, NATURAL = "uniform", "natural"
LoadUse = Literal["fit", "heldout", "probe"]
_SCALED = "-scaled-"


def sigma0_ladders(lab: Laboratory, sizes: Sizes) -> tuple[Ladder, ...]:
    """All of a tier's ladders at its sizes."""
    return (*_load_ladders(lab, sizes), *_other_ladders(lab, sizes), *_noise_ladders(lab, sizes))


def load_use(ladder: str) -> LoadUse:
    """Whether the drifts of a ladder may enter a fit, or serve one of the two tests that are no part of it."""
    return {HELDOUT_LOADS: "heldout", PROBED_LOADS: "probe"}.get(ladder, "fit")  # type: ignore[return-value]


def load_label(load: str) -> str:
    """A load as part of a test's id: zipf-0_5; a vector by its hash."""
    text = load.replace(":", "-").replace(".", "_")
    return text if re.fullmatch(r"[\w-]+", text) else f"load-{hashlib.sha256(load.encode()).hexdigest()[:6]}"


def probed_load(label: str) -> tuple[str, float]:
    """Load and strength of the causal probe from a rung's label: zipf-1-scaled-0_5 is (zipf-1, 0.5), zipf-1 has 0."""
    scaled = re.fullmatch(rf"(.+){_SCALED}(\d+(?:_\d+)?)", label)
    return (scaled[1], float(scaled[2].replace("_", "."))) if scaled else (label, 0.0)


def experts_of(model: ModelSpec) -> Experts:
    """The experts of a model that has them."""
    assert isinstance(model.feed_forward, Experts)
    return model.feed_forward


def steered(experts: Experts, load: str) -> Experts:
    """The same experts with that target load; SpecError where it is not feasible."""
    balance = "selection_bias" if get_variant(experts.router).scored else "none"
    return replace(experts, load=load, balance=balance)


def _mixture(
    sizes: Sizes, load: str, *, router: str = "sigmoid_norm", total: int = 16, activated: int = 2
) -> ModelSpec:
    """Experts of half the width, so that two of them are as wide as the model."""
    experts = Experts(total=total, activated=activated, hidden=sizes.width // 2, router=router)
    return ModelSpec(width=sizes.width, depth=sizes.depth, feed_forward=steered(experts, load))


def _load_ladders(lab: Laboratory, sizes: Sizes) -> Iterator[Ladder]:
    for name, router, loads in (
        (LOADS, "sigmoid_norm", lab.loads),
        (BLIND_LOADS, "content_blind", lab.blind_loads),
        (HELDOUT_LOADS, "sigmoid_norm", lab.heldout_loads),
    ):
        if not loads:
            continue
        rungs = [
            Rung(label=load_label(load), size=i + 1, model=_mixture(sizes, load, router=router))
            for i, load in enumerate((UNIFORM, *loads))
        ]
        yield _drift_ladder(name, rungs)
        if name == LOADS and lab.probed_loads:
            probed = [rung for rung in rungs if rung.load in lab.probed_loads]
            scaled = [_scaled(rung, strength) for rung in probed for strength in (0.5, 1.0)]
            yield _drift_ladder(PROBED_LOADS, [rungs[0], *(replace(rung, size=i + 2) for i, rung in enumerate(scaled))])


def _scaled(rung: Rung, strength: float) -> Rung:
    label = f"{rung.label}{_SCALED}{strength:g}".replace(".", "_")
    return replace(rung, label=label, load_scaling=strength)


def _other_ladders(lab: Laboratory, sizes: Sizes) -> Iterator[Ladder]:
    """A batch k times as large at fixed steps divides sigma_0 by sqrt(k); the others move it as Bridge II does."""
    even = _mixture(sizes, UNIFORM)
    if lab.batches:
        larger = [Rung(label=f"x{k}", size=k, model=even, batch=k, steps=1) for k in lab.batches]
        yield _drift_ladder(BATCHES, [Rung(label=UNIFORM, size=1, model=even), *larger])

    def rung(size: int, model: ModelSpec) -> Rung:
        return Rung(label=experts_of(model).notation, size=size, model=model)

    if lab.activated:
        reference = Rung(label="dense", size=1, model=dense(sizes.width, sizes.depth))
        more = [rung(a, _mixture(sizes, UNIFORM, activated=a)) for a in lab.activated]
        yield _drift_ladder(ACTIVATED, [reference, *more])
    if lab.capacities:
        yield _drift_ladder(CAPACITIES, [rung(n, _mixture(sizes, UNIFORM, total=n)) for n in (8, *lab.capacities)])


def _drift_ladder(name: str, rungs: list[Rung]) -> Ladder:
    return Ladder.of(rungs, axis=SIGMA0, name=name, uses=["drift"])


def _noise_ladders(lab: Laboratory, sizes: Sizes) -> Iterator[Ladder]:
    """One mixture each: the dense reference of its hyperparameters, then the mixture under each feasible load.

    A router that cannot be steered, or whose SPEC names a balancing method, keeps the load that it produces.
    """
    default = Scenario(model=dense(sizes.width, sizes.depth))
    reference = Rung(label="dense", size=1, model=default.model)
    for text in lab.noise_mixtures:
        model = parse_scenario(text, default=default).model
        experts = experts_of(model)
        router = experts.router if experts.balance == "none" else f"{experts.router}-{experts.balance}"
        natural = "balance=" in text or experts.router == "expert_choice"
        name = f"noise-d{model.width}-{experts.notation}-{router}" + ("-natural" if natural else "")
        if natural:
            targets = [Rung(label=NATURAL, size=2, model=model)]
        else:
            feasible = [load for load in (UNIFORM, *lab.noise_loads) if _is_feasible(experts, load)]
            targets = [
                Rung(label=load_label(load), size=i + 2, model=replace(model, feed_forward=steered(experts, load)))
                for i, load in enumerate(feasible)
            ]
        yield Ladder.of([reference, *targets], axis=SIGMA0, name=name, uses=["noise"])


def _is_feasible(experts: Experts, load: str) -> bool:
    try:
        steered(experts, load)
    except SpecError:
        return False
    return True
