"""Power: the smallest drift that would FAIL in 95 of 100 repetitions of a measurement."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import scipy

from mue_check.judge.interval import Looks, Z, look_level, t_quantile
from mue_check.judge.optimum import Optimum, vertex_sd

POWER = 0.95
_CLEAR = float(scipy.special.ndtri(POWER))
_SEVERAL_LOOKS = {(4, 8): 4.95, (4, 10): 4.77, (4, 12): 4.68}
"""As ``_distance``, for a look at every number of seeds from first to last, from simulated sequences."""


def detectable_drift(
    drifts: Sequence[float], reference: Optimum, target: Optimum, tolerance: float, looks: Looks = ()
) -> float:
    """The smallest true drift, in octaves, whose interval lies beyond ``tolerance`` with probability POWER.

    The spread over seeds is the larger of two: that of the measured ``drifts``, and the one expected from the residuals
    and curvatures of both curves, since four seeds can agree by luck. Infinite for fewer than two seeds.
    """
    n = len(drifts)
    if n < 2:
        return math.inf
    spread = max(float(np.std(drifts, ddof=1)), math.hypot(vertex_sd(reference), vertex_sd(target)))
    return detectable_of(spread, looks or (n,), tolerance)


def detectable_of(spread: float, looks: Looks, tolerance: float, shared: float = 0.0) -> float:
    """As ``detectable_drift``, for ``looks`` at drifts whose standard deviation over seeds is ``spread``.

    ``shared`` is the standard error of what more seeds do not reduce.
    """
    error = spread / math.sqrt(looks[-1])
    width = math.hypot((_distance(looks) - _CLEAR) * error, Z * shared)
    return tolerance + width + _CLEAR * math.hypot(error, shared)


@cache
def _distance(looks: Looks) -> float:
    """How many standard errors at the last look the true mean must lie beyond the tolerance to FAIL by then.

    Earlier looks add a little power: without a simulated value, it is that of the last look alone.
    """
    first, last = looks[0], looks[-1]
    if len(looks) == last - first + 1 and (first, last) in _SEVERAL_LOOKS:
        return _SEVERAL_LOOKS[first, last]
    critical = t_quantile(last - 1, look_level(looks))
    root = scipy.optimize.brentq(
        lambda shift: scipy.stats.nct.sf(critical, last - 1, shift) - POWER, 0.0, 20.0 + 4 * critical
    )
    return float(root)
