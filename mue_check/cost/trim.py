"""Trim a plan to a budget: as many targets of each ladder as there is time for, then as many seeds. What its drifts
could still detect then."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mue_check.cost.plan import Plan
from mue_check.cost.simulated import Spreads
from mue_check.errors import SpecError
from mue_check.judge.drift import MIN_SEEDS
from mue_check.judge.interval import look_level, t_quantile
from mue_check.judge.power import detectable_of
from mue_check.study.comparison import Comparison

Make = Callable[[list[str]], Plan]
"""Makes the plan with these options of pytest added."""


@dataclass(frozen=True, kw_only=True)
class Trimmed:
    """The plan that is left, the ``options`` that make it, and whether it ``fits``: even the smallest may not."""

    plan: Plan
    options: tuple[str, ...]
    fits: bool


def parse_budget(text: str) -> float:
    """The seconds in a time such as 10m, 90s or 1h30m. SpecError for anything else."""
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip(), re.ASCII)
    seconds = sum(float(n) * unit for n, unit in zip(found.groups(), (3600, 60, 1), strict=True) if n) if found else 0
    if not 0 < seconds < 1e9:
        raise SpecError(f"--budget {text}: write a time above 0 such as 10m, 90s or 1h30m")
    return seconds


def trim(full: Plan, budget: float, make: Make) -> Trimmed:
    """Fit a plan into ``budget`` seconds of wall clock on its workers.

    Seeds are taken away first. If MIN_SEEDS per drift still take too long, the last targets of each ladder go, down to
    one target each. With those targets the plan then gets as many seeds as fit.
    """

    def fits(plan: Plan) -> bool:
        assert plan.wall_seconds is not None
        return plan.wall_seconds <= budget

    if fits(full):
        return Trimmed(plan=full, options=(), fits=True)
    seeds = _seeds_of(full)
    rungs: list[list[str]] = [[], *(["--rungs", str(n)] for n in range(_most_targets(full) - 1, 0, -1))]
    for kept in rungs:
        best = make([*kept, *seeds[-1]])
        if fits(best):
            break
    else:
        return Trimmed(plan=best, options=(*rungs[-1], *seeds[-1]), fits=False)
    chosen, low, high = seeds[-1], 0, len(seeds) - 1
    while low < high:  # seeds descend: find the first that fits
        middle = (low + high) // 2
        plan = make([*kept, *seeds[middle]])
        if fits(plan):
            best, chosen, high = plan, seeds[middle], middle
        else:
            low = middle + 1
    return Trimmed(plan=best, options=(*kept, *chosen), fits=True)


def _seeds_of(plan: Plan) -> list[list[str]]:
    """``--seeds`` from the plan's own down to the minimum."""
    tier = plan.run.settings.tier
    pairs = [(tier.seeds, high) for high in range(tier.max_seeds, tier.seeds - 1, -1)]
    pairs += [(low, low) for low in range(tier.seeds - 1, MIN_SEEDS - 1, -1)]
    return [["--seeds", str(low) if low == high else f"{low}:{high}"] for low, high in pairs]


def _most_targets(plan: Plan) -> int:
    """The number of targets of the longest ladder."""
    s = plan.run.settings
    ladders = [
        ladder
        for axis in s.axes
        for corpus in s.corpora
        for question in ("drift", "scales", "speed", "tune_once")
        for ladder in s.ladders(axis, corpus, question)
    ]
    return max((len(ladder.targets) for ladder in ladders), default=1)


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
