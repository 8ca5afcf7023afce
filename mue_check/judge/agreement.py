"""Do measured drifts agree with predicted ones? Their line, and the mean of drifts that should all be the same."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from mue_check.judge.interval import Interval, jackknife_interval, t_quantile

_Array = NDArray[np.float64]
_LARGEST_SHARE = 0.9
"""A reference's share of the smallest variance of its drifts, at most: the target has some of it."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One drift, in octaves. ``standard_error`` is that of ``measured``.

    Points that name the same ``reference`` are drifts from one arm. Those of one ``group``, a ladder, may also share
    what theory leaves out.
    """

    predicted: float
    measured: float
    standard_error: float
    reference: str
    group: str


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """measured = ``intercept`` + ``slope`` x predicted.

    ``spread`` is the standard deviation of points around the line, in octaves, beyond what their intervals explain.
    """

    slope: Interval
    intercept: Interval
    spread: float


def fit_agreement(points: Sequence[Point]) -> Agreement | None:
    """The line through the points; None for fewer than three, or if all have one prediction."""
    predicted = np.array([point.predicted for point in points])
    if len(points) < 3 or np.ptp(predicted) == 0:
        return None
    (intercept, slope), spread = _fit(points, np.column_stack([np.ones_like(predicted), predicted]))
    return Agreement(slope=slope, intercept=intercept, spread=spread)


def mean_measured(points: Sequence[Point]) -> Interval:
    """The mean of the measured drifts; unbounded for fewer than two points."""
    if len(points) < 2:
        return Interval(points[0].measured if points else math.nan, -math.inf, math.inf, len(points))
    (mean,), _ = _fit(points, np.ones((len(points), 1)))
    return mean


def _fit(points: Sequence[Point], design: _Array) -> tuple[list[Interval], float]:
    """Generalized least squares: an interval for each column, and the spread between points.

    Each interval is the wider of two. The one from the covariance of the points knows that groups share a reference;
    the one from leaving out each group in turn knows what else the points of a group have in common.
    """
    measured = np.array([point.measured for point in points])
    noise = _covariance(points)
    variance = _variance_between(measured, design, noise)
    covariance = noise + variance * np.eye(len(points))
    found = _solve(measured, design, covariance)
    inverse = np.linalg.inv(design.T @ np.linalg.solve(covariance, design))
    half = t_quantile(max(len(points) - design.shape[1], 1)) * np.sqrt(np.diag(inverse))
    groups = np.array([point.group for point in points])
    kept = [np.flatnonzero(groups != group) for group in dict.fromkeys(groups)]
    # without its only mistakes, a group of predictions may leave no line
    kept = [rows for rows in kept if rows.size and np.linalg.matrix_rank(design[rows]) == design.shape[1]]
    without = np.array([_solve(measured[rows], design[rows], covariance[np.ix_(rows, rows)]) for rows in kept])
    intervals = []
    for at, mean in enumerate(found):
        left_out = jackknife_interval(mean, without[:, at].tolist() if kept else [])
        wider = max(half[at], left_out.half_width) if len(kept) > 1 else half[at]
        intervals.append(Interval(float(mean), float(mean - wider), float(mean + wider), len(points)))
    return intervals, math.sqrt(variance)


def _covariance(points: Sequence[Point]) -> _Array:
    """Of the measured drifts. Those from one reference share its error, which is taken to be half of their usual
    variance: one of two arms that are equally noisy."""
    variances = np.array([point.standard_error for point in points]) ** 2
    covariance = np.diag(variances)
    references = np.array([point.reference for point in points])
    for reference in dict.fromkeys(references):
        rows = np.flatnonzero(references == reference)
        shared = min(float(np.median(variances[rows])) / 2, _LARGEST_SHARE * float(variances[rows].min()))
        covariance[np.ix_(rows, rows)] += shared * (1 - np.eye(rows.size))
    return covariance


def _variance_between(measured: _Array, design: _Array, noise: _Array) -> float:
    """The variance that, added to each point, makes the weighted squares as large as expected (Paule and Mandel)."""
    freedom = len(measured) - design.shape[1]

    def excess(variance: float) -> float:
        covariance = noise + variance * np.eye(len(measured))
        off = measured - design @ _solve(measured, design, covariance)
        return float(off @ np.linalg.solve(covariance, off) - freedom)

    highest = float(np.var(measured)) + 1e-12
    if freedom < 1 or excess(0.0) <= 0:
        return 0.0
    while excess(highest) > 0:
        highest *= 2
    root: float = scipy.optimize.brentq(excess, 0.0, highest)
    return root


def _solve(measured: _Array, design: _Array, covariance: _Array) -> _Array:
    weighted = np.linalg.solve(covariance, design)
    return np.asarray(np.linalg.solve(weighted.T @ design, weighted.T @ measured), dtype=np.float64)
