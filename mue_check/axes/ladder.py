"""Ladders: a reference model, and the models, batch sizes and durations to which its base values should transfer."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mue_check.errors import SpecError
from mue_check.flops import relative_work
from mue_check.routing.variants import Variant, get_variant
from mue_check.rules import Knob
from mue_check.spec import Experts, ModelSpec, TrainSpec

LadderUse = Literal["drift", "scales", "speed", "tune_once", "noise"]
"""What can be measured along a ladder: optima, activation scales, steps to a loss, final losses, gradient noise."""
BY_GROUP = "_by_group"
"""How the name of a ladder ends along which the optimum of one role group is measured."""
USUAL: frozenset[LadderUse] = frozenset({"drift", "scales"})
Regime = Literal["sharp", "noise", "pairs", "memory"]
"""Which of a tier's tasks to train. "sharp" has a sharp optimum at little cost. "noise" has small batches and is
dominated by gradient noise, so that batch and duration matter. On "pairs" the feed-forward's own optimum is sharp. On
"memory" experts lower the loss."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One size on an axis. ``size`` is its place on the axis, ``label`` its name.

    ``batch`` and ``steps`` multiply those of the task. ``residual`` is the drift in octaves that remains under a law
    published as approximate; 0 for exact laws. ``load_scaling``, from 0 to 1, is the strength of a causal probe that
    scales each expert's update with its load.
    """

    label: str
    size: int
    model: ModelSpec
    batch: float = 1.0
    steps: float = 1.0
    residual: float = 0.0
    load_scaling: float = 0.0

    @property
    def load(self) -> str:
        """The target load of the experts; empty if there is none."""
        ffn = self.model.feed_forward
        return ffn.load if isinstance(ffn, Experts) else ""

    @property
    def work(self) -> float:
        """Rough training time in arbitrary units, good enough to sort tests."""
        return relative_work(self.model) * self.batch * self.steps

    def train(self, base: TrainSpec) -> TrainSpec:
        """The training of this rung if the reference trains like ``base``. Warm-up keeps its share of the steps."""
        return replace(
            base,
            batch=_whole(base.batch * self.batch, f"{self.label}: batch"),
            steps=_whole(base.steps * self.steps, f"{self.label}: steps"),
            warmup=round(base.warmup * self.steps),
        )


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """A reference and its targets in ascending size. An axis of ``--axes`` may have several ladders."""

    axis: str
    name: str
    reference: Rung
    targets: tuple[Rung, ...]
    regime: Regime = "sharp"
    uses: frozenset[LadderUse] = USUAL
    knobs: tuple[Knob, ...] = ("lr",)
    """The values whose drift is measured along it."""

    @classmethod
    def of(
        cls,
        rungs: Sequence[Rung],
        *,
        axis: str,
        name: str = "",
        regime: Regime = "sharp",
        uses: Iterable[LadderUse] = USUAL,
        knobs: Iterable[Knob] = ("lr",),
    ) -> "Ladder":
        """Make a ladder of ``rungs``, the reference first. Its name is that of the axis unless ``name`` is given."""
        first, *targets = rungs
        return cls(
            axis=axis,
            name=name or axis,
            reference=first,
            targets=tuple(targets),
            regime=regime,
            uses=frozenset(uses),
            knobs=tuple(knobs),
        )

    @classmethod
    def by_group(cls, rungs: Sequence[Rung], *, axis: str, name: str = "", knob: Knob = "lr:feed_forward") -> "Ladder":
        """A ladder along which the optimum of one role group is measured: by default that of the experts.

        The global learning rate hardly depends on the experts' multipliers. That of the experts alone does, by a third
        of the error in octaves (``rules.predicted``), so these ladders reach sizes at which the error is a factor of 8
        or more.
        """
        return cls.of(rungs, axis=axis, name=f"{name or axis}{BY_GROUP}", regime="pairs", uses=["drift"], knobs=[knob])

    @property
    def is_by_group(self) -> bool:
        """Whether the optimum of one role group is measured along it."""
        return self.regime == "pairs"

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """All rungs, the reference first."""
        return (self.reference, *self.targets)

    @property
    def steered_router(self) -> str | None:
        """The router, if this ladder compares target loads of one mixture; None otherwise."""
        mixtures = [e for rung in self.targets if isinstance(e := rung.model.feed_forward, Experts)]
        routers = {e.router for e in mixtures if e.load}
        return routers.pop() if len(routers) == 1 and all(e.load for e in mixtures) else None

    def of_kind(self, kind: Callable[[ModelSpec], ModelSpec]) -> "Ladder":
        """The same ladder with every model turned into one of another kind."""
        first, *targets = (replace(rung, model=kind(rung.model)) for rung in self.rungs)
        return replace(self, reference=first, targets=tuple(targets))

    def with_routing(self, router: str, balance: str) -> "Ladder | None":
        """The same ladder with another routing variant in every mixture; None if it would measure something else.

        The variant may add shared experts, and activate fewer experts or a fixed number. Targets that it cannot route
        are dropped. The ladder is left out if the variant cannot route its reference, if it is about activated experts
        or has one active width and the variant changes that, if it steers loads, or if it measures only gradient noise.
        """
        if (router, balance) == ("sigmoid_norm", "none"):
            return self  # the rule's own routing; a hybrid keeps its normalization
        if self.steered_router or self.uses == {"noise"}:
            return None
        variant = get_variant(router)
        pairs = [(rung, routed) for rung in self.rungs if (routed := _routed(rung, variant, balance))]
        if not pairs or pairs[0][0] != self.reference:
            return None
        before = [rung for rung, _ in pairs]
        rungs: dict[object, Rung] = {}
        for _, routed in pairs:
            rungs.setdefault((routed.model, routed.batch, routed.steps), routed)  # keep the first of equal rungs
        first, *rest = after = list(rungs.values())
        # along a group's ladder, the number of activated experts is what makes a mistake large
        about_activated = len(_activated(before)) > 1 or self.is_by_group
        about_activated = about_activated and _activated(after) != _activated(before)
        one_width = len(_active_widths(before)) == 1 < len(_active_widths(after))
        return None if not rest or about_activated or one_width else replace(self, reference=first, targets=tuple(rest))


def _activated(rungs: Sequence[Rung]) -> set[int]:
    experts = [rung.model.feed_forward for rung in rungs]
    return {e.activated for e in experts if isinstance(e, Experts)}


def _active_widths(rungs: Sequence[Rung]) -> set[int]:
    return {rung.model.feed_forward.active_width for rung in rungs}


def _routed(rung: Rung, variant: Variant, balance: str) -> Rung | None:
    old = rung.model.feed_forward
    if not isinstance(old, Experts):
        return rung
    activated = variant.fixed_activated or old.activated
    if not variant.claim_at(old.total, activated).takes(old.total, activated):
        return None
    new = replace(
        old,
        activated=activated,
        groups=old.groups if variant.grouped and activated % old.groups == 0 else 1,
        shared=max(old.shared, variant.shared),
        router=variant.name,
        balance=balance,
    )
    label = rung.label.replace(old.notation, new.notation).removesuffix("-per-group")
    return replace(rung, label=label, model=replace(rung.model, feed_forward=new))


def _whole(value: float, what: str) -> int:
    if value < 1 or not math.isclose(value, round(value)):
        raise SpecError(f"{what} becomes {value:g}: must be a whole number of at least 1")
    return round(value)
