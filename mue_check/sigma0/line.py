"""A straight line through points whose errors lie in both directions, with scatter that no error explains."""

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from mue_check.judge.interval import Interval, t_quantile

EXACT = 1e-12
"""Stands for no scatter: the covariance of points without errors could not be inverted."""
SHARED = 0.5
"""Correlation of the errors of two points with one reference, when target and reference are equally noisy."""
_Array = NDArray[np.float64]


def damped(errors: _Array) -> _Array:
    """Standard errors with their variances moved halfway to the mean: four seeds that agree by luck must not decide."""
    return np.asarray(np.sqrt((errors**2 + (errors**2).mean()) / 2))


@dataclass(frozen=True, kw_only=True)
class Line:
    """(intercept, slope), their covariance, tau^2, and chi^2."""

    mean: _Array
    covariance: _Array
    scatter: float
    chi2: float


@dataclass(frozen=True, kw_only=True)
class NoisyPoints:
    """Points x, y [n] with the covariances [n, n] of their errors. ``origin``: the line goes through 0.

    Least squares in y alone flatten the line where x has errors. So chi^2 weighs by var y + slope^2 var x + scatter,
    and the scatter is the one at which chi^2 has its expected value (Tremaine et al. 2002, ApJ 574, 740). scipy.odr
    handles neither errors that points share nor a scatter.
    """

    x: _Array
    y: _Array
    x_errors: _Array
    y_errors: _Array
    origin: bool

    @property
    def df(self) -> int:
        """Degrees of freedom: points minus parameters."""
        return len(self.x) - (1 if self.origin else 2)

    def solve(self, probability: float = 0.5) -> Line:
        """The line, with a tau^2 that is an upper confidence limit of level ``probability``; by default the median.

        That is where chi^2, which falls with tau^2, equals the quantile of its distribution (Viechtbauer 2007, Statist.
        Med. 26, 37), and 0 where chi^2 is below that quantile without scatter.
        """
        level = float(scipy.stats.chi2.ppf(1 - probability, self.df))
        x, y = self._centred
        rest = y - x * (x @ y) / (x @ x)
        # chi^2 of ordinary least squares; further errors can only lower it
        top = float(rest @ rest) / level * (1 + 1e-6) + EXACT
        if self._least(EXACT)[1] <= level:
            return self._line(EXACT)
        return self._line(float(scipy.optimize.brentq(lambda t: self._least(t)[1] - level, EXACT, top, rtol=1e-2)))

    def intervals(self, line: Line) -> tuple[Interval, Interval]:
        """The 95 % intervals of intercept and slope."""
        half, n = t_quantile(self.df) * np.sqrt(np.diag(line.covariance)), len(self.x)
        intercept, slope = (
            Interval(float(m), float(m - h), float(m + h), n) for m, h in zip(line.mean, half, strict=True)
        )
        return intercept, slope

    def same_slope(self, line: Line, groups: NDArray[np.str_]) -> float:
        """p-value of the F test that all ``groups`` [n] of points have one slope; 1 where there is nothing to compare.

        Both models use the errors and the scatter of ``line``.
        """
        names = [name for name in np.unique(groups) if np.ptp(self.x[groups == name]) > 0]
        left = self.df - len(names) + 1
        if len(names) < 2 or left < 1:
            return 1.0
        scatter, slope = line.scatter, float(line.mean[1])
        errors = self.y_errors + slope**2 * self.x_errors + scatter * np.eye(len(self.x))
        # the sum of squares of whitened residuals is chi^2
        whiten = np.linalg.inv(np.linalg.cholesky(errors))
        common = np.stack([np.ones_like(self.x), self.x], axis=1)[:, self.origin :]
        own = np.stack([np.where(groups == name, self.x, 0.0) for name in names[1:]], axis=1)
        squares = []
        for design in (common, np.concatenate([common, own], axis=1)):
            fit = np.linalg.lstsq(whiten @ design, whiten @ self.y)[0]
            squares.append(float(((whiten @ (self.y - design @ fit)) ** 2).sum()))
        if squares[0] <= EXACT:
            return 1.0
        ratio = (squares[0] - squares[1]) / (len(names) - 1) / (max(squares[1], EXACT) / left)
        return float(scipy.stats.f.sf(ratio, len(names) - 1, left))

    @property
    def _centred(self) -> tuple[_Array, _Array]:
        return (self.x, self.y) if self.origin else (self.x - self.x.mean(), self.y - self.y.mean())

    def _least(self, scatter: float) -> tuple[float, float]:
        """The slope of least chi^2, and that chi^2."""
        x, y = self._centred
        start = float(x @ y / (x @ x))
        reach = 3 * abs(start) + 3 * math.sqrt(float(y @ y / (x @ x))) + 1.0
        best = scipy.optimize.minimize_scalar(
            lambda slope: self._at(slope, scatter)[1],
            bounds=(start - reach, start + reach),
            method="bounded",
            options={"xatol": 1e-6},
        )
        return float(best.x), float(best.fun)

    def _at(self, slope: float, scatter: float) -> tuple[float, float, _Array]:
        """Best intercept at this slope, chi^2, and the residuals divided by their covariance [n]."""
        covariance = self.y_errors + slope**2 * self.x_errors
        covariance.flat[:: len(self.x) + 1] += scatter
        rest = self.y - slope * self.x
        ones = np.ones_like(rest)
        over, weights = np.linalg.solve(covariance, np.stack([rest, ones], axis=1)).T
        intercept = 0.0 if self.origin else float(over.sum() / weights.sum())
        over = over - intercept * weights
        return intercept, float((rest - intercept) @ over), over

    def _line(self, scatter: float) -> Line:
        slope, chi2 = self._least(scatter)
        intercept, _, over = self._at(slope, scatter)
        # the most likely true x: the spread of the measured x includes their errors
        x = self.x + slope * self.x_errors @ over
        design = np.stack([np.ones_like(x), x], axis=1)[:, self.origin :]
        errors = self.y_errors + slope**2 * self.x_errors + scatter * np.eye(len(x))
        covariance = np.zeros((2, 2))
        covariance[self.origin :, self.origin :] = np.linalg.inv(design.T @ np.linalg.solve(errors, design))
        return Line(mean=np.array([intercept, slope]), covariance=covariance, scatter=scatter, chi2=chi2)
