"""The residual of sigma_0 as a line in the imbalance of the load, and which measure of imbalance explains most.

The residual is the measured shift of log2 sigma_0 minus the theory's. Where each expert's sigma follows a power of its
tokens, the measured shift is gamma times the shortfall, the theory's is half of it, and the residual is (gamma - 1/2)
times it. So the line to quote is the one against the shortfall. A good fit of it proves nothing, since the residual
contains the theory's half in any case: simulated with 15 loads whose shift follows one measure of imbalance, the
shortfall explains the residual best in 0.81 to 1.00 of the cases, whichever measure it was. So measures are ranked by
how much they explain of the measured shift. That picks the true one of the four in 0.68 (coefficient of variation),
0.48 (entropy), 0.92 (max/mean) and 0.77 (shortfall) of the cases; with 5 loads in 0.34 to 0.83.

The slope to quote is the weighted one. A model has no residual against itself, so its line goes through the origin, and
it takes into account that all loads share the error of their reference, which an ordinary fit mistakes for an
intercept. Simulated with 8 seeds, an error of 0.05 octave per load, a true slope of -0.28 octave per bit and ``tau``
octaves of scatter, 300 times each (root mean square error of the slope, in parentheses the coverage of its interval):

| loads | tau  | weighted     | ordinary     | robust       |
|-------|------|--------------|--------------|--------------|
| 5     | 0    | 0.050 (0.99) | 0.058 (0.93) | 0.064 (0.98) |
| 5     | 0.05 | 0.060 (0.99) | 0.084 (0.96) | 0.089 (0.98) |
| 15    | 0    | 0.037 (0.96) | 0.036 (0.95) | 0.040 (0.95) |
| 15    | 0.05 | 0.048 (0.95) | 0.052 (0.93) | 0.058 (0.95) |
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from mue_check.errors import JudgeError
from mue_check.judge.interval import CONFIDENCE, Interval, t_interval, t_quantile
from mue_check.sigma0.imbalance import EVEN, MEASURES, SHORTFALL, Imbalance
from mue_check.sigma0.line import SHARED, NoisyPoints, damped
from mue_check.sigma0.shift import ShiftFinding, Sigma0Shift

MIN_POINTS = 3
RANKED_POINTS = 5
"""With fewer loads every measure explains nearly everything, and the best one is luck."""
_NONE = t_interval([])
_Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ResidualFit:
    """Octaves of residual per unit of ``measure``. ``slope`` is the one to quote, of the weighted fit.

    ``scatter`` (octaves) about its line is what no error of measurement explains. ``ordinary``, with its ``intercept``,
    and ``robust`` are slopes of unweighted fits. ``explained`` is the share of the residual's variance that the
    ordinary line explains, ``shift_explained`` the same of the measured shift.
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


def fit_residuals(loads: Sequence[tuple[Imbalance, Sigma0Shift]]) -> tuple[ResidualFit, ...]:
    """One fit for each measure, of loads that share one reference: those of one routing on one corpus."""
    measured = np.array([s.shift.mean for _, s in loads])
    y = np.array([s.residual.mean for _, s in loads])
    se = np.array([s.residual.standard_error for _, s in loads])
    if not (np.isfinite(y).all() and np.isfinite(se).all()):
        raise JudgeError("a residual without a finite interval cannot be fitted: leave its load out")
    return tuple(
        _fit(name, np.array([measure(imbalance) for imbalance, _ in loads]), y, se, measured)
        for name, measure in MEASURES.items()
    )


def best_measure(fits: Sequence[ResidualFit]) -> ResidualFit | None:
    """The measure that explains most of the measured shift; None with too few loads to rank them."""
    fitted = [fit for fit in fits if fit.reason is None and fit.slope.n >= RANKED_POINTS]
    return max(fitted, key=lambda fit: fit.shift_explained, default=None)


def _fit(measure: str, x: _Vector, y: _Vector, se: _Vector, measured: _Vector) -> ResidualFit:
    if len(x) < MIN_POINTS:
        return ResidualFit(measure=measure, reason=f"{len(x)} load(s): at least {MIN_POINTS} are needed")
    if np.ptp(x) < 1e-9:
        return ResidualFit(measure=measure, reason=f"every load has {x[0]:.3g}: loads that differ are needed")
    n = len(x)
    least = scipy.stats.linregress(x, y)
    half = t_quantile(n - 2) * float(least.stderr)
    median = scipy.stats.theilslopes(y, x, CONFIDENCE)
    damped_se = damped(se)
    points = NoisyPoints(
        x=x,
        y=y,
        x_errors=np.zeros((n, n)),
        y_errors=np.outer(damped_se, damped_se) * (SHARED + (1 - SHARED) * np.eye(n)),
        origin=True,
    )
    line = points.solve()
    return ResidualFit(
        measure=measure,
        slope=points.intervals(line)[1],
        scatter=math.sqrt(line.scatter),
        ordinary=Interval(float(least.slope), float(least.slope) - half, float(least.slope) + half, n),
        intercept=float(least.intercept),
        robust=Interval(float(median.slope), float(median.low_slope), float(median.high_slope), n),
        explained=float(least.rvalue) ** 2,
        shift_explained=float(scipy.stats.linregress(x, measured).rvalue) ** 2,
    )


@dataclass(frozen=True, kw_only=True)
class ResidualGroup:
    """Loads that share a reference, of one routing on one corpus, with the fits against each measure of imbalance."""

    routing: str
    corpus: str
    loads: tuple[tuple[Imbalance, Sigma0Shift], ...]
    fits: tuple[ResidualFit, ...]

    @property
    def quoted(self) -> ResidualFit | None:
        """The fit against the shortfall; None with too few loads for a line."""
        return next((fit for fit in self.fits if fit.measure == SHORTFALL and fit.reason is None), None)


def residual_groups(found: Sequence[ShiftFinding]) -> list[ResidualGroup]:
    """All measured uneven loads; the largest group first."""
    groups: dict[tuple[str, str, str], list[tuple[Imbalance, Sigma0Shift]]] = {}
    for s in found:
        if s.imbalance and s.imbalance.variation > EVEN and s.shift.reason is None:
            key = (s.routing, s.comparison.corpus, s.comparison.rule)
            groups.setdefault(key, []).append((s.imbalance, s.shift))
    return [
        ResidualGroup(routing=routing, corpus=corpus, loads=tuple(loads), fits=fit_residuals(loads))
        for (routing, corpus, _), loads in sorted(groups.items(), key=lambda group: -len(group[1]))
    ]
