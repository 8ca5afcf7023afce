"""Power: the smallest drift that would FAIL in 95 of 100 repetitions of a measurement."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from mue_check.judge.interval import t_quantile
from mue_check.judge.optimum import Optimum

POWER = 0.95


def detectable_drift(drifts: Sequence[float], reference: Optimum, target: Optimum, tolerance: float) -> float:
    """The smallest true drift, in octaves, whose interval lies beyond ``tolerance`` with probability POWER.

    The spread over seeds is the larger of two: that of the measured ``drifts``, and the one expected from the residuals
    and curvatures of both curves, since four seeds can agree by luck. Infinite for fewer than two seeds.
    """
    n = len(drifts)
    if n < 2:
        return math.inf
    spread = max(float(np.std(drifts, ddof=1)), math.hypot(vertex_sd(reference), vertex_sd(target)))
    return detectable_of(spread, n, tolerance)


def detectable_of(spread: float, seeds: int, tolerance: float) -> float:
    """As ``detectable_drift``, for at least two ``seeds`` whose drifts have the standard deviation ``spread``."""
    return tolerance + spread / math.sqrt(seeds) * _noncentrality(seeds)


def vertex_sd(optimum: Optimum) -> float:
    """Standard error of one seed's vertex in octaves, by the delta method: sigma / (2 c sqrt(Sxx))."""
    x = np.asarray(optimum.window)
    return optimum.residual_sd / (2 * optimum.curvature * math.sqrt(float(((x - x.mean()) ** 2).sum())))


def _noncentrality(n: int) -> float:
    """How many standard errors beyond the tolerance a true mean must lie for its interval to clear it."""
    critical = t_quantile(n - 1)
    root = optimize.brentq(lambda shift: stats.nct.sf(critical, n - 1, shift) - POWER, 0.0, 20.0 + 4 * critical)
    return float(root)
