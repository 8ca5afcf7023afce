"""The residual of sigma_0 against the imbalance of the load: its line, and which measure of imbalance explains most.

Where each expert follows a power of its tokens, measured is gamma times the shortfall (``judge.sigma0``), theory's half
of it, and the residual (gamma - 1/2) times it: so the line against the shortfall is the one to quote. That it fits well
proves nothing, since the theory's half is in the residual whatever was measured. Simulated with 15 loads whose shift
follows one measure in truth, the residual is best explained by the shortfall in 0.81 to 1.00 of the cases, whichever
measure it was. So measures are ranked by what they explain of the measured shift. That finds the true one among four in
0.68 (coefficient of variation), 0.48 (entropy), 0.92 (max/mean) and 0.77 (shortfall); of 5 loads in 0.34 to 0.83.

Quoted is the weighted fit. A model against itself has no residual, so its line goes through the origin; and it knows
that all loads share the errors of their reference, which an ordinary fit takes for an intercept. Simulated with 8
seeds, 0.05 octave of error an arm, a slope of -0.28 octave a bit in truth and ``tau`` octaves of scatter, 300 times
each (root mean square error of the slope, and in brackets the share of intervals that hold the true one):

| loads | tau  | weighted     | ordinary     | robust       |
|-------|------|--------------|--------------|--------------|
| 5     | 0    | 0.050 (0.99) | 0.058 (0.93) | 0.064 (0.98) |
| 5     | 0.05 | 0.060 (0.99) | 0.084 (0.96) | 0.089 (0.98) |
| 15    | 0    | 0.037 (0.96) | 0.036 (0.95) | 0.040 (0.95) |
| 15    | 0.05 | 0.048 (0.95) | 0.052 (0.93) | 0.058 (0.95) |
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mue_check.errors import JudgeError
from mue_check.judge.interval import CONFIDENCE, Interval, t_interval, t_quantile
from mue_check.sigma0.imbalance import Imbalance
from mue_check.sigma0.kappa import SHARED
from mue_check.sigma0.line import PointErrors, steadied

SHORTFALL = "shortfall (bits)"
"""What the shift is linear in where sigma follows a power of the tokens."""
MEASURES: Mapping[str, Callable[[Imbalance], float]] = {
    "coefficient of variation": lambda i: i.variation,
    "1 - normalized entropy": lambda i: 1 - i.entropy,
    "max/mean - 1": lambda i: i.peak - 1,
    SHORTFALL: lambda i: i.shortfall_bits,
}
"""Each is 0 for the even load, against which the residual is 0 too. All without a unit but the last."""
MIN_POINTS = 3
RANKED_POINTS = 5
"""With fewer loads every measure explains nearly all, and the best is the luckiest."""
_NONE = t_interval([])
_Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ResidualPoint:
    """One load against the even one: measured ``shift`` of log2 sigma_0, and ``residual``, that less the theory's."""

    label: str
    imbalance: Imbalance
    shift: Interval
    residual: Interval


@dataclass(frozen=True, kw_only=True)
class ResidualFit:
    """Octaves of residual for each unit of ``measure``. ``slope`` is the one to quote, of the weighted fit.

    ``ordinary`` and ``robust`` are slopes beside an ``intercept`` of the ordinary fit. ``explained`` is the share of
    the residual's variance that the ordinary line explains, ``scatter`` what lies about the weighted one and is no
    error of measurement, in octaves. ``shift_explained`` is the share of the measured shift itself.
    """

    measure: str
    slope: Interval = _NONE
    scatter: float = math.nan
    ordinary: Interval = _NONE
    intercept: float = math.nan
    robust: Interval = _NONE
    explained: float = math.nan
    shift_explained: float = math.nan
    reason: str | None = None


def fit_residuals(points: Sequence[ResidualPoint]) -> tuple[ResidualFit, ...]:
    """One fit for each measure, of points that share one reference: those of one routing on one corpus."""
    y = np.array([p.residual.mean for p in points])
    measured = np.array([p.shift.mean for p in points])
    se = np.array([p.residual.standard_error for p in points])
    if not (np.isfinite(y).all() and np.isfinite(se).all()):
        raise JudgeError("a residual without a finite interval cannot be fitted: leave its point out")
    return tuple(
        _fit(name, np.array([measure(p.imbalance) for p in points]), y, se, measured)
        for name, measure in MEASURES.items()
    )


def best_measure(fits: Sequence[ResidualFit]) -> ResidualFit | None:
    """The one that explains most of the measured shift; None with too few loads to say."""
    fitted = [fit for fit in fits if fit.reason is None and fit.slope.n >= RANKED_POINTS]
    return max(fitted, key=lambda fit: fit.shift_explained, default=None)


def _fit(measure: str, x: _Vector, y: _Vector, se: _Vector, measured: _Vector) -> ResidualFit:
    if len(x) < MIN_POINTS:
        return ResidualFit(measure=measure, reason=f"{len(x)} load(s): at least {MIN_POINTS} are needed")
    if np.ptp(x) < 1e-9:
        return ResidualFit(measure=measure, reason=f"every load has {x[0]:.3g}: loads that differ are needed")
    n = len(x)
    least = stats.linregress(x, y)
    half = t_quantile(n - 2) * float(least.stderr)
    median = stats.theilslopes(y, x, CONFIDENCE)
    steady = steadied(se)
    errors = PointErrors(
        x=x,
        y=y,
        x_errors=np.zeros((n, n)),
        y_errors=np.outer(steady, steady) * (SHARED + (1 - SHARED) * np.eye(n)),
        origin=True,
    )
    line = errors.solve()
    slope = float(line.mean[1])
    width = t_quantile(errors.df) * math.sqrt(line.covariance[1, 1])
    return ResidualFit(
        measure=measure,
        slope=Interval(slope, slope - width, slope + width, n),
        scatter=math.sqrt(line.scatter),
        ordinary=Interval(float(least.slope), float(least.slope) - half, float(least.slope) + half, n),
        intercept=float(least.intercept),
        robust=Interval(float(median.slope), float(median.low_slope), float(median.high_slope), n),
        explained=float(least.rvalue) ** 2,
        shift_explained=float(stats.linregress(x, measured).rvalue) ** 2,
    )
