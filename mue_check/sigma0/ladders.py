"""Ladders of the sigma_0 laboratory: loads of one mixture, other changes that move sigma_0, and mixtures for gamma.

Drifts are measured in the regime where the optimum is sharp and follows the batch at fixed steps, as it must if it
follows sigma_0 (docs/choices.md).
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from mue_check.axes.ladder import Ladder, Rung
from mue_check.axes.scale import dense
from mue_check.axes.sizes import Sizes
from mue_check.errors import SpecError
from mue_check.routing.variants import get_variant
from mue_check.spec import Experts, ModelSpec, Scenario
from mue_check.spec_text import parse_scenario
from mue_check.tiers import CPU, Tier


@dataclass(frozen=True, kw_only=True)
class Laboratory:
    """Target loads, mixtures and numbers of seeds. An empty tuple leaves its ladder out.

    ``loads``, ``blind_loads`` (content-blind routing) and ``heldout_loads`` (not used by any fit) are compared with the
    uniform load; ``probed_loads`` are those of ``loads`` that the causal probe repeats. ``batches`` are factors,
    ``activated`` and ``capacities`` numbers of experts.
    """

    loads: tuple[str, ...] = ()
    blind_loads: tuple[str, ...] = ()
    probed_loads: tuple[str, ...] = ()
    heldout_loads: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    activated: tuple[int, ...] = ()
    capacities: tuple[int, ...] = ()
    noise_loads: tuple[str, ...] = ("zipf:1",)
    """Loads, besides the uniform one, under which gamma is measured."""
    noise_mixtures: tuple[str, ...] = ("16e2a,h=16", "16e2a,h=16,router=content_blind")
    """SPECs of the mixtures whose gamma is measured; what they leave out is the dense reference's."""
    noise_seeds: int = 4
    """Seeds of gradient noise, added this many at a time, up to ``max_noise_seeds``, while gamma is too uncertain."""
    max_noise_seeds: int = 4
    drift_seeds: int = 6
    """Seeds of each drift: a drift budget is only as good as the drifts that it is fitted to."""

    def seeds_of_drift(self, tier: Tier) -> int:
        """``drift_seeds``, or the tier's limit where that is lower."""
        return self.drift_seeds if tier.seed_limit is None else min(self.drift_seeds, tier.seed_limit)


_MIXTURES = (
    "16e2a,h=16",
    "d=64,16e2a,h=32",
    "32e4a,h=8",
    "8e2a,h=16",
    "16e2a,h=16,router=content_blind",
    "16e2a,h=16,router=softmax_norm",
    "16e2a1s,h=16,router=deepseek_v3",
    "16e2a2g,h=16,router=moge",
    "16e2a2g,h=16,router=sigmoid_group_norm",
    "16e2a,h=16,router=sigmoid_mean",
    "16e1a,h=16,router=switch",
    "16e2a,h=16,router=expert_choice",
    *(
        f"16e{a},h=16,router={router},balance={balance}"
        for router, a in (("sigmoid_norm", "2a"), ("softmax_norm", "2a"), ("deepseek_v3", "2a1s"), ("switch", "1a"))
        for balance in ("none", "auxiliary_loss", "selection_bias")
    ),
    *(f"16e2a2g,h=16,router={router},balance=none" for router in ("moge", "sigmoid_group_norm")),
    "16e2a,h=16,router=sigmoid_mean,balance=none",
)
"""Two widths and three (N, a) of the rule's own routing, which are measured on a second corpus too; then each variant
at one size, with steered loads and with the loads that its own balancing produces."""
_QUICK = Laboratory()
_FULL = Laboratory(
    loads=("zipf:0.5", "zipf:1", "zipf:1.5", "hot:2:0.6", "hot:4:0.8"),
    blind_loads=("zipf:0.5", "zipf:1", "zipf:1.5"),
    probed_loads=("zipf:1", "zipf:1.5"),
    heldout_loads=(
        "zipf:0.25",
        "zipf:0.75",
        "zipf:1.25",
        "hot:1:0.3",
        "hot:2:0.4",
        "hot:4:0.6",
        "hot:8:0.8",
        "6/1/3/9/2/7/5/4/8/1/2/3/10/4/6/5",
        "20/1/1/2/1/12/1/3/1/1/16/2/1/1/8/1",
        "8/8/8/8/4/4/4/4/2/2/2/2/1/1/1/1",
    ),
    batches=(2, 4),
    activated=(2, 4, 8),
    capacities=(32,),
    noise_loads=("zipf:0.5", "zipf:1", "zipf:1.5"),
    noise_mixtures=_MIXTURES,
    noise_seeds=8,
    max_noise_seeds=16,
    drift_seeds=12,
)
_GPU = Laboratory(
    noise_mixtures=("16e2a,h=64", "16e2a,h=64,router=content_blind"), noise_seeds=8, max_noise_seeds=8, drift_seeds=12
)
LABORATORIES: Mapping[str, Laboratory] = {"smoke": _QUICK, "cpu": _QUICK, "lab": _FULL, "gpu": _GPU, "full": _GPU}
"""By the name of the tier."""
LAB = replace(CPU, name="lab")
"""The models and corpora of tier cpu with the whole laboratory: `pytest suites/test_sigma0.py --tier lab`, two hours of
one core."""


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
