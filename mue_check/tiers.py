"""Tiers: sizes and durations for one kind of machine, with tuned base values for each corpus."""

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from mue_check.axes import AXES, BY_GROUP, Ladder, LadderUse, Regime, Sizes
from mue_check.errors import SpecError
from mue_check.precision import Precision
from mue_check.rules import HyperParameters, Knob, base_value
from mue_check.rules.knob import quantity_of
from mue_check.spec import ModelSpec, TrainSpec


@dataclass(frozen=True, kw_only=True)
class Task:
    """How the reference of a tier trains on one corpus. ``base`` is only where the search begins.

    docs/choices.md has the measurements behind each choice. Seeds are added, up to the tier's limit and even after a
    PASS, until the half-width of the interval is at most ``half_width`` octaves.
    """

    train: TrainSpec
    base: HyperParameters
    half_width: float
    other_bases: Mapping[Knob, HyperParameters] = field(default_factory=dict)
    tuned: Mapping[Knob, float] = field(default_factory=dict)
    """Base values of role groups that were tuned one by one, such as ``lr:attention`` (arXiv 2512.22382)."""
    early: HyperParameters | None = None
    """The base values of early curves; None for ``base``."""
    corpus: str | None = None
    """The task's own source; None for the corpus of the study."""
    grid_step: float = 0.75
    """Octaves between the values of a sweep of all groups at once."""

    def can_sweep(self, knob: Knob) -> bool:
        """Whether base values are known at which this knob has an optimum (docs/choices.md)."""
        return quantity_of(knob) in ("lr", "multiplier") or knob in self.other_bases

    def base_for(self, knob: Knob) -> HyperParameters:
        """The base values around which this knob is swept, at which its optimum is sharp."""
        return self.other_bases.get(knob, self.base)

    def log2_start(self, knob: Knob) -> float:
        """log2 of the value at which the search for the reference's optimum begins."""
        return math.log2(self.tuned.get(knob, base_value(knob, self.base_for(knob))))


@dataclass(frozen=True, kw_only=True)
class Tier:
    """Sizes, seeds and tolerance for a run of the suites. ``tolerance`` is in octaves of the swept value."""

    name: str
    device: str
    corpora: tuple[str, ...]
    sizes: Sizes
    scale_sizes: Sizes
    """Sizes of the ladders for activation scales. They are larger, because only a few steps are trained."""
    tolerance: float
    seeds: int
    max_seeds: int
    seed_limit: int | None = None
    """The most seeds that any question may take; None for no limit."""
    precision: Precision = "fp32"
    tasks: Mapping[tuple[str, Regime], Task]
    """By corpus name and regime."""
    other_corpora: str = "text"
    """The corpus name in ``tasks`` that stands for every corpus without tasks of its own, such as files."""
    kind: Callable[[ModelSpec], ModelSpec] | None = None
    """Makes the specification of another kind of model from that of a language model, of which ladders consist."""
    axes: Mapping[str, Callable[[Sizes], tuple[Ladder, ...]]] = field(default_factory=lambda: AXES)
    """The ladders of each axis at given sizes."""
    left_out: frozenset[str] = frozenset()
    """Ladders along which no optimum is measured."""

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of seeds at which a drift is judged: one more each time, until it is settled."""
        return tuple(range(self.seeds, self.max_seeds + 1))

    def ladders(self, axis: str, question: LadderUse = "drift") -> tuple[Ladder, ...]:
        """The ladders of one axis for a question, at this tier's sizes."""
        if axis not in self.axes:
            raise SpecError(f"unknown axis {axis!r}: allowed are {', '.join(self.axes)}")
        ladders = self.axes[axis](self.scale_sizes if question == "scales" else self.sizes)
        left_out = self.left_out if question == "drift" else ()
        return tuple(
            ladder.of_kind(self.kind) if self.kind else ladder
            for ladder in ladders
            if question in ladder.uses and ladder.targets and ladder.name not in left_out
        )

    def ladder(self, name: str, question: LadderUse = "drift") -> Ladder | None:
        """The ladder of that name for a question; None if this tier has none."""
        found = (ladder for axis in self.axes for ladder in self.ladders(axis, question))
        return next((ladder for ladder in found if ladder.name == name), None)

    def task(self, corpus: str, regime: Regime = "sharp") -> Task:
        """The task for a corpus and a regime."""
        return self.tasks.get((corpus, regime), self.tasks[self.other_corpora, regime])


_BASE = HyperParameters(lr=2.0**-6.5, weight_decay=0.1, init_std=0.1, eps=1e-8, beta1=0.9, beta2=0.95)
_NOISE = TrainSpec(steps=400, batch=4, context=16, warmup=40)
_MEMORY = Task(
    train=TrainSpec(steps=500, batch=96, context=2, warmup=50),
    base=replace(_BASE, lr=2.0**-7),
    half_width=0.25,
    corpus="memory",
)
_PAIRS = Task(
    train=TrainSpec(steps=200, batch=128, context=2, warmup=20),
    base=replace(_BASE, lr=2.0**-5.75),
    half_width=0.5,
    # with more, logits at init are a part of what is swept, and they fall with width (docs/choices.md)
    other_bases={"multiplier:unembedding": replace(_BASE, lr=2.0**-5.75, init_std=0.03)},
    corpus="pairs",
)
_CPU_TASKS: Mapping[tuple[str, Regime], Task] = {
    ("markov", "sharp"): Task(train=TrainSpec(steps=200, batch=16, context=16, warmup=20), base=_BASE, half_width=0.25),
    ("text", "sharp"): Task(
        train=TrainSpec(steps=500, batch=16, context=32, warmup=50),
        base=_BASE,
        half_width=0.5,
        other_bases={"init_std": replace(_BASE, init_std=2.0**-4), "init_std:embedding": _BASE},
    ),
    ("markov", "noise"): Task(
        train=_NOISE,
        base=replace(_BASE, lr=2.0**-7),
        half_width=0.25,
        other_bases={"weight_decay": replace(_BASE, lr=2.0**-6, weight_decay=0.25)},
    ),
    ("text", "noise"): Task(
        train=TrainSpec(steps=1600, batch=4, context=16, warmup=160), base=replace(_BASE, lr=2.0**-7.5), half_width=0.5
    ),
    ("markov", "pairs"): _PAIRS,
    ("text", "pairs"): _PAIRS,
    ("text", "memory"): _MEMORY,
}
# the rule scales the init std from 0.1 at d = 32 to 0.05 at d = 128 (rho_d^-1/2), and the learning rate by 1 / rho_d
_GPU_BASE = replace(_BASE, lr=2.0**-8.5, init_std=0.05)
_GPU_TRAIN: Mapping[Regime, TrainSpec] = {
    "sharp": TrainSpec(steps=1000, batch=64, context=64, warmup=100),
    "noise": TrainSpec(steps=2000, batch=8, context=32, warmup=200),
}
_GPU_TASKS: Mapping[tuple[str, Regime], Task] = (
    {
        (corpus, regime): Task(train=train, base=_GPU_BASE, half_width=0.125)
        for corpus in ("markov", "text")
        for regime, train in _GPU_TRAIN.items()
    }
    | {(corpus, "pairs"): replace(_PAIRS, base=replace(_GPU_BASE, lr=2.0**-7.75)) for corpus in ("markov", "text")}
    | {("text", "memory"): _MEMORY}
)

_SPEED = ("16e16a-h2", "8e2a-h16", "32e2a-h16", "128e2a-h16", "32e8a-h4")
_SMOKE_SIZES = Sizes(
    width=32,
    depth=2,
    widths=(64,),
    mixture_widths=(),
    depths=(4, 8),
    batches=(4,),
    durations=(2,),
    activated=(2,),
    total_experts=16,
    capacity_base=8,
    capacities=(32,),
    granularities=(),
    shared=(),
    groups=(),
    memory_experts=(8, 32),
    speed=(),
    heldout="d=48,8e2a1s,h=12",
)
_CPU_SIZES = replace(
    _SMOKE_SIZES,
    widths=(64, 128),
    mixture_widths=(64,),
    depths=(4, 8, 16),
    batches=(2, 4),
    durations=(2, 4),
    activated=(2, 8),
    capacities=(256,),
    granularities=(4,),
    shared=(2,),
    groups=(4,),
    memory_experts=(8, 32, 128),
    speed=_SPEED,
    heldout="d=64,L=6,16e4a1s,h=16",
)
SMOKE = Tier(
    name="smoke",
    device="cpu",
    corpora=("markov",),
    sizes=_SMOKE_SIZES,
    scale_sizes=replace(
        _SMOKE_SIZES,
        widths=(64, 128),
        mixture_widths=(64, 128),
        depths=(2, 4, 8, 16),
        activated=(2, 4, 8, 16),
        capacities=(32, 128),
        granularities=(2, 4),
        shared=(1, 2),
        groups=(2, 4),
    ),
    tolerance=0.5,
    seeds=4,
    max_seeds=12,
    tasks=_CPU_TASKS,
    # of the ladders by group, one is left: the positive control of the experts
    left_out=frozenset({"bridges_composed", f"bridge_2{BY_GROUP}", *(f"{axis}{BY_GROUP}" for axis in AXES)}),
)
CPU = replace(
    SMOKE,
    name="cpu",
    left_out=frozenset(),
    corpora=("markov", "docstrings"),
    sizes=_CPU_SIZES,
    scale_sizes=replace(
        SMOKE.scale_sizes,
        widths=(64, 128, 256),
        mixture_widths=(64, 128, 256),
        capacities=(16, 32, 64, 128, 256),
        heldout=_CPU_SIZES.heldout,
    ),
)
_GPU_SIZES = Sizes(
    width=128,
    depth=4,
    widths=(256, 512),
    mixture_widths=(256,),
    depths=(4, 8, 16),
    batches=(2, 4),
    durations=(2, 4),
    activated=(2, 4, 8),
    total_experts=16,
    capacity_base=8,
    capacities=(64, 256, 1024),
    granularities=(2, 4, 8),
    shared=(1, 2),
    groups=(2, 4),
    memory_experts=(8, 32, 128),
    speed=_SPEED,
    heldout="d=256,L=8,128e8a1s,h=128",
)
GPU = Tier(
    name="gpu",
    device="cuda",
    precision="tf32",
    corpora=("markov", "docstrings"),
    sizes=_GPU_SIZES,
    scale_sizes=replace(
        _GPU_SIZES, widths=(256, 512, 1024), mixture_widths=(256, 512), depths=(4, 8, 16, 32), activated=(2, 4, 8, 16)
    ),
    tolerance=0.25,
    seeds=4,
    max_seeds=12,
    tasks=_GPU_TASKS,
)
FULL = replace(
    GPU,
    name="full",
    sizes=replace(_GPU_SIZES, widths=(256, 512, 1024), activated=(2, 4, 8, 16), total_experts=32),
    scale_sizes=replace(GPU.scale_sizes, widths=(256, 512, 1024, 2048), activated=(2, 4, 8, 16, 32), total_experts=32),
)


def require_device(tier: Tier) -> None:
    """Raise SpecError if a tier needs a device that this machine does not have."""
    if tier.device == "cuda" and shutil.which("nvidia-smi") is None:
        raise SpecError(f"--tier {tier.name} needs a CUDA device and this machine has none: use --tier smoke or cpu")
