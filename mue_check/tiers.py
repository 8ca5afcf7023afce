"""Tiers: how large and how long, so that a suite fits a machine; and the tuned base values of each corpus."""

import math
from dataclasses import dataclass, replace

from mue_check.axes import Ladder, activated_experts_ladder, width_ladder
from mue_check.errors import SpecError
from mue_check.rules import HyperParameters
from mue_check.spec import TrainSpec


@dataclass(frozen=True, kw_only=True)
class Task:
    """How a reference of one tier trains on one corpus; ``base.lr`` is only where the search begins.

    Chosen by measured spread of the optimum and curvature: docs/choices.md holds the numbers. Seeds are
    added to a PASS too, up to the tier's cap, until its interval's half-width is ``half_width`` octaves.
    """

    train: TrainSpec
    base: HyperParameters
    half_width: float

    @property
    def log2_lr(self) -> float:
        """Where the search for the reference's optimum begins."""
        return math.log2(self.base.lr)


@dataclass(frozen=True, kw_only=True)
class Tier:
    """Sizes, seeds and tolerance of one run of the suites. ``tolerance`` is in octaves of learning rate."""

    name: str
    device: str
    corpora: tuple[str, ...]
    widths: tuple[int, ...]
    coordinate_widths: tuple[int, ...]
    activated: tuple[int, ...]
    coordinate_activated: tuple[int, ...]
    total_experts: int
    depth: int
    tolerance: float
    seeds: int
    max_seeds: int
    tasks: dict[str, Task]
    """By corpus name; ``text`` serves the docstrings and every token file."""

    def ladder(self, axis: str) -> Ladder:
        """The ladder of one axis at this tier's sizes."""
        return self._ladder(axis, self.widths, self.activated)

    def coordinate_ladder(self, axis: str) -> Ladder:
        """The ladder for activation scales: a few steps are cheap, so it goes further."""
        return self._ladder(axis, self.coordinate_widths, self.coordinate_activated)

    def _ladder(self, axis: str, widths: tuple[int, ...], activated: tuple[int, ...]) -> Ladder:
        if axis == "width":
            return width_ladder(widths, depth=self.depth)
        if axis == "activated_experts":
            return activated_experts_ladder(activated, total=self.total_experts, width=widths[0], depth=self.depth)
        raise SpecError(f"unknown axis {axis!r}")

    def task(self, corpus: str) -> Task:
        """How to train on that corpus."""
        return self.tasks.get(corpus, self.tasks["text"])


_BASE = HyperParameters(lr=2.0**-6.5, weight_decay=0.1, init_std=0.1, eps=1e-8, beta1=0.9, beta2=0.95)
_CPU_TASKS = {
    "markov": Task(train=TrainSpec(steps=200, batch=8, context=32, warmup=20), base=_BASE, half_width=0.25),
    "text": Task(train=TrainSpec(steps=500, batch=16, context=32, warmup=50), base=_BASE, half_width=0.5),
}
_GPU_TRAIN = TrainSpec(steps=1000, batch=64, context=64, warmup=100)
# 0.1 at d = 32 is 0.05 at d = 128 by the rule's own rho_d^-1/2, and the learning rate follows 1 / rho_d
_GPU_BASE = replace(_BASE, lr=2.0**-8.5, init_std=0.05)
_GPU_TASKS = {name: Task(train=_GPU_TRAIN, base=_GPU_BASE, half_width=0.125) for name in ("markov", "text")}

SMOKE = Tier(
    name="smoke",
    device="cpu",
    corpora=("markov",),
    widths=(32, 64),
    coordinate_widths=(32, 64, 128),
    activated=(2,),
    coordinate_activated=(2, 4, 8, 16),
    total_experts=16,
    depth=2,
    tolerance=0.5,
    seeds=4,
    max_seeds=8,
    tasks=_CPU_TASKS,
)
CPU = replace(
    SMOKE,
    name="cpu",
    corpora=("markov", "docstrings"),
    widths=(32, 64, 128),
    coordinate_widths=(32, 64, 128, 256),
    activated=(2, 4, 8),
)
GPU = Tier(
    name="gpu",
    device="cuda",
    corpora=("markov", "docstrings"),
    widths=(128, 256, 512),
    coordinate_widths=(128, 256, 512, 1024),
    activated=(2, 4, 8),
    coordinate_activated=(2, 4, 8, 16),
    total_experts=16,
    depth=4,
    tolerance=0.25,
    seeds=4,
    max_seeds=8,
    tasks=_GPU_TASKS,
)
FULL = replace(
    GPU,
    name="full",
    widths=(128, 256, 512, 1024),
    coordinate_widths=(128, 256, 512, 1024, 2048),
    activated=(2, 4, 8, 16),
    coordinate_activated=(2, 4, 8, 16, 32),
    total_experts=32,
    max_seeds=12,
)

TIERS = {tier.name: tier for tier in (SMOKE, CPU, GPU, FULL)}


def get_tier(name: str) -> Tier:
    """The tier of that name; SpecError names the known ones."""
    try:
        return TIERS[name]
    except KeyError:
        raise SpecError(f"unknown tier {name!r}: allowed are {', '.join(TIERS)}") from None
