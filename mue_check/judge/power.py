"""Power: the drift that a measurement would call FAIL in 95 of 100 repetitions."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from mue_check.judge.interval import t_quantile
from mue_check.judge.optimum import Optimum

POWER = 0.95


def detectable_drift(drifts: Sequence[float], reference: Optimum, target: Optimum, tolerance: float) -> float:
    """Smallest true drift, in octaves, whose whole interval lies beyond ``tolerance`` with POWER.

    Its spread is that of the measured ``drifts`` over seeds, or what both curves' residuals and curvatures
    make expect, whichever is larger: four seeds can agree by luck. Infinite under two seeds.
    """
    n = len(drifts)
    if n < 2:
        return math.inf
    spread = max(float(np.std(drifts, ddof=1)), math.hypot(vertex_sd(reference), vertex_sd(target)))
    return detectable_of(spread, n, tolerance)


def detectable_of(spread: float, seeds: int, tolerance: float) -> float:
    """The same for ``seeds`` drifts of a known standard deviation ``spread``, two seeds at least."""
    return tolerance + spread / math.sqrt(seeds) * _noncentrality(seeds)


def vertex_sd(optimum: Optimum) -> float:
    """Standard error of one seed's vertex, in octaves: sigma / (2 c sqrt(Sxx)), the delta method on the parabola."""
    x = np.asarray(optimum.window)
    return optimum.residual_sd / (2 * optimum.curvature * math.sqrt(float(((x - x.mean()) ** 2).sum())))


def _noncentrality(n: int) -> float:
    """How many standard errors beyond the tolerance a mean of ``n`` must lie, for the lower end to clear it."""
    critical = t_quantile(n - 1)
    root = optimize.brentq(lambda shift: stats.nct.sf(critical, n - 1, shift) - POWER, 0.0, 20.0 + 4 * critical)
    return float(root)
