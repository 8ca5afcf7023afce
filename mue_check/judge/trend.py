"""The trend of a drift along an axis, extrapolated to a larger size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mue_check.judge.drift import Drift
from mue_check.judge.interval import PLAIN, Interval, look_level, t_interval


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Octaves of drift per doubling of the size, and the drift that this predicts at ``size``.

    The interval contains the spread over seeds, but not the uncertainty about whether the line continues.
    """

    slope: Interval
    size: float
    at_size: Interval


def judge_trend(reference_size: float, drifts: Sequence[tuple[float, Drift]], size: float) -> Trend | None:
    """For each seed, the least-squares line through the reference (drift 0) and every (size, drift).

    None if fewer than two drifts are resolved or they have fewer than two seeds in common.
    """
    resolved = [(s, d) for s, d in drifts if d.reason is None]
    slope = drift_slope(reference_size, resolved)
    if len(resolved) < 2 or slope.n < 2:
        return None
    reach = math.log2(size / reference_size)
    at_size = replace(slope, mean=reach * slope.mean, low=reach * slope.low, high=reach * slope.high)
    return Trend(slope=slope, size=size, at_size=at_size)


def drift_slope(reference_size: float, resolved: Sequence[tuple[float, Drift]]) -> Interval:
    """Octaves of drift per doubling of the size, over seeds, from every (size, drift); no values without a drift.

    Seeds were added until each drift was settled, so the level is the strictest of theirs.
    """
    slopes = slopes_by_seed(reference_size, resolved)
    return t_interval(slopes, min((look_level(drift.looks) for _, drift in resolved), default=PLAIN))


def slopes_by_seed(reference_size: float, drifts: Sequence[tuple[float, Drift]]) -> list[float]:
    """Octaves per doubling of the size, by each seed that all drifts have; empty if all are of the reference's size."""
    x = np.array([math.log2(size / reference_size) for size, _ in drifts])
    if not x.any():
        return []
    measured = [drift.by_seed for _, drift in drifts]
    seeds = [seed for seed in measured[0] if all(seed in by_seed for by_seed in measured)]
    return [float(x @ [by_seed[seed] for by_seed in measured] / (x @ x)) for seed in seeds]
