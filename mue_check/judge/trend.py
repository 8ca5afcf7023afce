"""The trend of a drift along an axis, extrapolated to a larger size."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mue_check.judge.drift import Drift
from mue_check.judge.interval import Interval, look_level, t_interval


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
    resolved: list[tuple[float, Mapping[int, float]]] = [(s, d.by_seed) for s, d in drifts if d.reason is None]
    if len(resolved) < 2 or all(s == reference_size for s, _ in resolved):
        return None
    x = np.array([math.log2(s / reference_size) for s, _ in resolved])
    seeds = [seed for seed in resolved[0][1] if all(seed in by_seed for _, by_seed in resolved)]
    if len(seeds) < 2:
        return None
    slopes = [float(x @ [by_seed[seed] for _, by_seed in resolved] / (x @ x)) for seed in seeds]
    reach = math.log2(size / reference_size)
    # seeds were added until the drifts were settled: the strictest of their levels
    level = min(look_level(drift.looks) for _, drift in drifts)
    at_size = t_interval([reach * slope for slope in slopes], level)
    return Trend(slope=t_interval(slopes, level), size=size, at_size=at_size)
