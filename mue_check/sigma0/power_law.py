"""The exponent gamma of noise-to-signal against tokens, sigma ~ tokens^-gamma, with an interval over seeds.

The gamma to quote is fitted to signal/noise = 2^(2 gamma log2 tokens - 2 c) itself, over every point, by Poisson
pseudo-likelihood (Santos Silva & Tenreyro 2006, "The log of gravity"): the estimate of |G|^2 is unbiased, so negative
values can stay in the fit. Fits of logarithms must leave points out, and those are the rare experts whose noisy signal
came out low. Simulated (32 points, 23 to 531 tokens, K = 96 batches, true gamma 0.5; mean over 200 tables, in
parentheses the share whose interval contains 0.5; sigma^2 is that of 128 tokens):

| sigma^2 | seeds | not resolved | naive | ordinary    | weighted    | robust      | natural scale |
|---------|-------|--------------|-------|-------------|-------------|-------------|---------------|
| 10      | 4     | 0 of 32      | 0.50  | 0.50 (0.96) | 0.49 (0.99) | 0.50 (0.95) | 0.50 (0.96)   |
| 100     | 4     | 8 of 32      | 0.50  | 0.47 (0.86) | 0.46 (0.94) | 0.46 (0.91) | 0.50 (0.98)   |
| 400     | 4     | 25 of 32     | 0.32  | 0.36 (0.71) | 0.36 (0.87) | 0.34 (0.83) | 0.51 (0.96)   |
| 400     | 8     | 16 of 32     | 0.32  | 0.36 (0.52) | 0.38 (0.73) | 0.35 (0.72) | 0.50 (0.95)   |

"naive" fits the logarithms of each seed's positive values. Where all points are resolved the fits agree. The interval
is a jackknife over seeds, since the experts of one model are not independent; with two seeds it is four times as wide
as with four.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

from mue_check.judge.interval import Interval, jackknife_interval, t_interval
from mue_check.sigma0.noise import MIN_SEEDS, Replicates, read_replicates

MIN_POINTS = 3
MAX_GAMMA = 5.0
"""Beyond it the likelihood has no maximum: all signal sits in the experts with the most tokens."""
_NONE = t_interval([])
_Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class NoisePoint:
    """One expert under one setting: log2 of its tokens per batch and of sigma."""

    setting: str
    expert: int
    log2_tokens: float
    log2_sigma: float


@dataclass(frozen=True, kw_only=True)
class GammaFit:
    """log2 sigma = ``intercept`` - gamma log2 tokens. ``gamma`` is the one to quote; ``reason`` says why there is none.

    ``ordinary``, ``weighted`` and ``robust`` fit the logarithms of ``points``, which are resolved. ``unresolved``
    counts the other points; ``gamma`` includes those of them that have tokens and noise.
    """

    gamma: Interval = _NONE
    ordinary: Interval = _NONE
    weighted: Interval = _NONE
    robust: Interval = _NONE
    intercept: float = math.nan
    points: tuple[NoisePoint, ...] = ()
    unresolved: int = 0
    seeds: tuple[int, ...] = ()
    reason: str | None = None

    def __str__(self) -> str:
        if self.reason is not None:
            return f"no gamma: {self.reason}"
        left = f", {self.unresolved} not resolved" if self.unresolved else ""
        return f"gamma {self.gamma} over {len(self.seeds)} seeds, {len(self.points)} points{left}"


def fit_gamma(table: pd.DataFrame) -> GammaFit:
    """Fit the exponent of sigma against tokens for one kind of matrix in one layer.

    ``table`` has columns setting, seed, expert, tokens (mean per batch), noise (unbiased tr Sigma of the batch
    gradient) and signal (unbiased |G|^2, may be negative). Raises JudgeError for any other table.
    """
    measured = read_replicates(table, ["setting", "expert"])
    resolved, alive = measured.resolved, measured.select(measured.alive)
    kept, unresolved = measured.select(resolved), int((~resolved).sum())
    reason = None
    if len(measured.seeds) < MIN_SEEDS:
        reason = f"{len(measured.seeds)} seed(s): at least {MIN_SEEDS} are needed to tell signal from noise"
    elif resolved.sum() < MIN_POINTS:
        reason = f"{resolved.sum()} of {len(resolved)} points are resolved: at least {MIN_POINTS} are needed"
    elif math.isclose(np.ptp(kept.log2_tokens), 0, abs_tol=1e-9):
        reason = f"every point has {2 ** kept.log2_tokens[0]:.4g} tokens: loads that differ are needed"
    if reason is None:
        gamma = _jackknife(lambda points: power_law(points)[1], alive)
        if not math.isfinite(gamma.half_width):
            reason = "signal/noise follows no power of the tokens: measure with more batches or seeds"
    if reason is not None:
        return GammaFit(unresolved=unresolved, seeds=measured.seeds, reason=reason)
    points = tuple(
        NoisePoint(setting=str(row["setting"]), expert=int(row["expert"]), log2_tokens=float(n), log2_sigma=float(s))
        for row, n, s in zip(kept.points.to_dict("records"), kept.log2_tokens, kept.log2_sigma, strict=True)
    )
    return GammaFit(
        gamma=gamma,
        ordinary=_jackknife(_ordinary, kept),
        weighted=_jackknife(_weighted, kept),
        robust=_jackknife(_robust, kept),
        intercept=power_law(alive)[0],
        points=points,
        unresolved=unresolved,
        seeds=measured.seeds,
    )


def _jackknife(fit: Callable[[Replicates], float], kept: Replicates) -> Interval:
    """Leave out one seed at a time, with the points that were chosen from all seeds."""
    return jackknife_interval(fit(kept), [fit(kept.without(seed)) for seed in kept.seeds])


def power_law(alive: Replicates) -> tuple[float, float]:
    """Intercept and gamma of log2 sigma, fitted to 1 / sigma^2 itself; NaN where no power law has a likelihood.

    sum(model - measured * log(model)) is convex for any sign of the measured value.
    """
    x = 2 * math.log(2) * alive.log2_tokens
    ratio = alive.signal_to_noise
    design = np.stack([np.ones_like(x), x - x.mean()], axis=1)
    scale = ratio.mean()
    if scale <= 0:
        return math.nan, math.nan

    def objective(b: _Vector) -> float:
        return float((np.exp(design @ b) - ratio / scale * (design @ b)).sum())

    def gradient(b: _Vector) -> _Vector:
        return np.asarray(design.T @ (np.exp(design @ b) - ratio / scale))

    def curvature(b: _Vector) -> _Vector:
        return np.asarray((design * np.exp(design @ b)[:, None]).T @ design)

    fit = optimize.minimize(objective, np.zeros(2), jac=gradient, hess=curvature, method="trust-exact")
    if not fit.success or abs(fit.x[1]) > MAX_GAMMA:
        return math.nan, math.nan
    level, gamma = float(fit.x[0] + math.log(scale)), float(fit.x[1])
    return (gamma * x.mean() - level) / (2 * math.log(2)), gamma


def _ordinary(kept: Replicates) -> float:
    return -float(stats.linregress(kept.log2_tokens, kept.log2_sigma).slope)


def _weighted(kept: Replicates) -> float:
    """Weighted by the points' variance; equal weights where one seed leaves no variance."""
    if len(kept.seeds) < 2:
        return _ordinary(kept)
    error = kept.standard_error
    # a few seeds that agree by luck must not decide alone
    error = np.maximum(error, np.median(error) / 4 + 1e-12)
    return -float(np.polyfit(kept.log2_tokens, kept.log2_sigma, 1, w=1 / error)[0])


def _robust(kept: Replicates) -> float:
    """The Theil-Sen median of slopes, which unlike soft_l1 has no scale to choose."""
    return -float(stats.theilslopes(kept.log2_sigma, kept.log2_tokens).slope)
