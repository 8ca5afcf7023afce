"""What the drifts of a plan could still detect with its seeds: interval and power of each ladder."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mue_check.cost.plan import Plan
from mue_check.cost.spreads import Spreads
from mue_check.judge.interval import look_level, t_quantile
from mue_check.judge.power import detectable_of
from mue_check.questions.comparison import Comparison


@dataclass(frozen=True, kw_only=True)
class PowerLeft:
    """The drifts along one ladder, in octaves, with the most seeds that the plan allows.

    ``spread`` is the measured standard deviation over seeds, ``half_width`` the expected half-width of the 95 %
    interval, and ``detectable`` the drift that FAILs with 95 % power: it lies beyond the tolerance and beyond the
    ``residual`` of an approximate law. ``left_out`` are the targets that the plan no longer has.
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
        """Whether a model without any drift would usually PASS."""
        return self.half_width < self.tolerance


def power_left(plan: Plan, spreads: Spreads, *, before: Plan) -> list[PowerLeft]:
    """One row for each ladder, knob and corpus that has a drift with an expected verdict in ``before``."""
    kept, full = _by_ladder(plan), _by_ladder(before)
    looks = plan.run.settings.tier.looks
    seeds = looks[-1]
    rows = []
    for key, drifts in full.items():
        left = kept.get(key, [])
        targets = tuple(map(_target, left))
        c = (left or drifts)[-1]  # the farthest target, which has the largest residual under an approximate law
        spread = spreads.for_power(c.ladder, c.knob, c.corpus)
        rows.append(
            PowerLeft(
                axis=c.axis,
                ladder=c.ladder,
                knob=c.knob,
                corpus=c.corpus,
                targets=targets,
                left_out=tuple(target for target in map(_target, drifts) if target not in targets),
                seeds=seeds,
                tolerance=c.tolerance,
                residual=c.residual,
                spread=spread,
                half_width=t_quantile(seeds - 1, look_level(looks)) * spread / math.sqrt(seeds),
                detectable=detectable_of(spread, looks, c.tolerance + abs(c.residual)),
            )
        )
    return rows


def controls_lost(plan: Plan, before: Plan) -> list[str]:
    """Names of the controls of ``before`` that the plan no longer has."""
    kept = {c.name for c in _drifts(plan)}
    return [c.name for c in _drifts(before) if c.is_control and c.name not in kept]


def _drifts(plan: Plan) -> Iterable[Comparison]:
    return (c for test in plan.run.tests for c in test.drifts)


def _by_ladder(plan: Plan) -> dict[tuple[str, ...], list[Comparison]]:
    """Drifts with an expected verdict, without controls, by ladder, knob and corpus; targets in ascending size."""
    found: dict[tuple[str, ...], list[Comparison]] = {}
    for c in sorted(_drifts(plan), key=lambda c: c.sides[-1].size):
        if c.expected and not c.is_control:
            found.setdefault((c.axis, c.ladder, c.knob, c.corpus), []).append(c)
    return found


def _target(c: Comparison) -> str:
    return c.sides[-1].label
