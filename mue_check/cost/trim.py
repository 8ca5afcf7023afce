"""Trim a plan to a budget: as many targets of each ladder as it has time for, then as many seeds."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from mue_check.cost.plan import Plan
from mue_check.errors import SpecError
from mue_check.judge.drift import MIN_SEEDS

Make = Callable[[list[str]], Plan]
"""Makes the plan with these options of pytest added."""

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


@dataclass(frozen=True, kw_only=True)
class Trimmed:
    """The plan that is left, the ``options`` that make it, and whether it ``fits``: the floor may be too much."""

    plan: Plan
    options: tuple[str, ...]
    fits: bool


def parse_budget(text: str) -> float:
    """Seconds of 10m, 90s or 1h30m; SpecError for anything else."""
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    seconds = sum(float(n) * unit for n, unit in zip(found.groups(), _UNITS.values(), strict=True) if n) if found else 0
    if not seconds:
        raise SpecError(f"--budget {text}: write a time above 0 such as 10m, 90s or 1h30m")
    return seconds


def trim(full: Plan, budget: float, make: Make) -> Trimmed:
    """Fewer targets, the last of each ladder first, where MIN_SEEDS do not bring it down; else fewer seeds alone.

    One target of each ladder stays, and no drift has fewer than MIN_SEEDS seeds. ``budget`` is in seconds of wall
    clock on the plan's workers.
    """

    def fits(plan: Plan) -> bool:
        assert plan.wall_seconds is not None
        return plan.wall_seconds <= budget

    if fits(full):
        return Trimmed(plan=full, options=(), fits=True)
    seeds, most = _seeds_of(full), _most_targets(full)
    rungs: list[list[str]] = [[], *(["--rungs", str(n)] for n in range(most - 1, 0, -1))]
    floor = next(((r, p) for r in rungs if fits(p := make([*r, *seeds[-1]]))), None)
    if floor is None:
        options = [*rungs[-1], *seeds[-1]]
        return Trimmed(plan=make(options), options=tuple(options), fits=False)
    kept, best = floor
    chosen, low, high = seeds[-1], 0, len(seeds) - 1
    while low < high:  # the first that fits, of seeds in falling order
        middle = (low + high) // 2
        plan = make([*kept, *seeds[middle]])
        if fits(plan):
            best, chosen, high = plan, seeds[middle], middle
        else:
            low = middle + 1
    return Trimmed(plan=best, options=(*kept, *chosen), fits=True)


def _seeds_of(plan: Plan) -> list[list[str]]:
    """From the plan's own seeds down to the floor."""
    tier = plan.collected.settings.tier
    pairs = [(tier.seeds, high) for high in range(tier.max_seeds, tier.seeds - 1, -1)]
    pairs += [(low, low) for low in range(tier.seeds - 1, MIN_SEEDS - 1, -1)]
    return [["--seeds", str(low) if low == high else f"{low}:{high}"] for low, high in pairs]


def _most_targets(plan: Plan) -> int:
    """Of the longest ladder that --rungs cuts."""
    s = plan.collected.settings
    asked = [
        s.ladders(axis, corpus, question)
        for axis in s.axes
        for corpus in s.corpora
        for question in ("drift", "scales", "speed")
    ]
    return max((len(ladder.targets) for ladders in asked for ladder in ladders), default=1)
