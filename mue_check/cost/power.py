"""What the drifts of a plan could still see: the interval and the power that its seeds leave each ladder."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mue_check.cost.plan import Plan
from mue_check.cost.spreads import Spreads
from mue_check.judge.interval import t_quantile
from mue_check.judge.power import detectable_of
from mue_check.questions.comparison import Comparison


@dataclass(frozen=True, kw_only=True)
class PowerLeft:
    """Of the drifts along one ladder, in octaves, at the most seeds that the plan allows.

    ``spread`` is the measured standard deviation over seeds, ``half_width`` the half of the 95 % interval that it makes
    expect, ``detectable`` the drift that would FAIL with 95 % power: beyond the tolerance, and the ``residual`` of an
    approximate law. ``targets`` are asked, ``left_out`` were before.
    """

    axis: str
    ladder: str
    knob: str
    corpus: str
    targets: tuple[str, ...]
    left_out: tuple[str, ...]
    seeds: int
    tolerance: float
    residual: float
    spread: float
    half_width: float
    detectable: float

    @property
    def decidable(self) -> bool:
        """Whether a model that does not drift at all would be called PASS, as a rule."""
        return self.half_width < self.tolerance


def power_left(plan: Plan, spreads: Spreads, *, before: Plan) -> list[PowerLeft]:
    """One row per ladder, knob and corpus on which the rule under test is asked for a drift in ``before``."""
    asked, full = _targets(plan), _targets(before)
    seeds = plan.collected.settings.tier.max_seeds
    rows = []
    for key, drifts in full.items():
        left = asked.get(key, [])
        kept = tuple(map(_label, left))
        c = (left or drifts)[-1]  # the farthest target: an approximate law leaves it the most
        spread = spreads.for_power(c.ladder, c.knob, c.corpus)
        rows.append(
            PowerLeft(
                axis=c.axis,
                ladder=c.ladder,
                knob=c.knob,
                corpus=c.corpus,
                targets=kept,
                left_out=tuple(label for label in map(_label, drifts) if label not in kept),
                seeds=seeds,
                tolerance=c.tolerance,
                residual=c.residual,
                spread=spread,
                half_width=t_quantile(seeds - 1) * spread / math.sqrt(seeds),
                detectable=detectable_of(spread, seeds, c.tolerance + abs(c.residual)),
            )
        )
    return rows


def controls_lost(plan: Plan, before: Plan) -> list[str]:
    """Controls that are no longer asked, by name."""
    kept = {c.name for c in _drifts(plan)}
    return [c.name for c in _drifts(before) if c.is_control and c.name not in kept]


def _drifts(plan: Plan) -> Iterable[Comparison]:
    return (c for asked in plan.collected.asked for c in asked.drifts)


def _targets(plan: Plan) -> dict[tuple[str, ...], list[Comparison]]:
    """Drifts of which something is expected, controls apart, by ladder, knob and corpus, in ascending size."""
    found: dict[tuple[str, ...], list[Comparison]] = {}
    for c in sorted(_drifts(plan), key=lambda c: c.sides[-1].size):
        if c.expected and not c.is_control:
            found.setdefault((c.axis, c.ladder, c.knob, c.corpus), []).append(c)
    return found


def _label(c: Comparison) -> str:
    return c.sides[-1].label
