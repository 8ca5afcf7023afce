"""Rungs and ladders: the models, batches and durations along which a base value is carried, from one reference."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from mue_check.errors import SpecError
from mue_check.routers import get_router
from mue_check.spec import Experts, ModelSpec, TrainSpec

Question = Literal["drift", "scales", "speed"]
"""What a ladder is for: optima, activation scales, steps to a loss."""
Regime = Literal["sharp", "noise"]
"""Which of a tier's tasks: "sharp" has a sharp optimum at little cost, "noise" is dominated by gradient noise (small
batches), where batch and duration matter at all."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One size on an axis. ``size`` is its place on the axis, ``label`` what people call it.

    ``batch`` and ``steps`` multiply the task's own. ``residual`` is the drift in octaves that a law which
    is published as approximate leaves to its optimum; 0 for the exact ones.
    """

    label: str
    size: int
    model: ModelSpec
    batch: float = 1.0
    steps: float = 1.0
    residual: float = 0.0

    def train(self, base: TrainSpec) -> TrainSpec:
        """How this rung trains where the reference trains like ``base``: the warm-up keeps its share."""
        return replace(
            base,
            batch=_whole(base.batch * self.batch, f"{self.label}: batch"),
            steps=_whole(base.steps * self.steps, f"{self.label}: steps"),
            warmup=round(base.warmup * self.steps),
        )


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """A reference and its targets, in ascending size. ``axis`` is what ``--axes`` names; one axis may have several."""

    axis: str
    name: str
    reference: Rung
    targets: tuple[Rung, ...]
    regime: Regime = "sharp"
    asks: frozenset[Question] = frozenset({"drift", "scales"})

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """Reference first."""
        return (self.reference, *self.targets)

    def with_routing(self, router: str, balance: str) -> "Ladder":
        """The same ladder with another routing variant in every mixture.

        Shared experts that belong to the variant join; where it activates fewer experts, so do the rungs, and
        those that become equal are one.
        """
        if (router, balance) == ("sigmoid_norm", "none"):
            return self  # the rule's own, and a hybrid keeps its normalization
        kind = get_router(router)

        def changed(rung: Rung) -> Rung:
            old = rung.model.feed_forward
            if not isinstance(old, Experts):
                return rung
            activated = min(old.activated, kind.most_activated or old.activated)
            new = replace(
                old,
                activated=activated,
                groups=old.groups if kind.grouped and activated % old.groups == 0 else 1,
                shared=max(old.shared, kind.shared),
                router=router,
                balance=balance,
            )
            label = rung.label.replace(old.notation, new.notation)
            return replace(rung, label=label, model=replace(rung.model, feed_forward=new))

        rungs = list({(r.model, r.batch, r.steps): r for r in map(changed, self.rungs)}.values())
        return replace(self, reference=rungs[0], targets=tuple(rungs[1:]))


def _whole(value: float, what: str) -> int:
    if value < 1 or not math.isclose(value, round(value)):
        raise SpecError(f"{what} becomes {value:g}: must be a whole number of at least 1")
    return round(value)
