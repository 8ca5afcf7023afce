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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

from mue_check.errors import JudgeError
from mue_check.judge.interval import Interval, jackknife_interval, t_interval, t_quantile

VALUES = ("tokens", "noise", "signal")
MIN_SEEDS = 2
Form = Literal["raw", "adam"]
"""The raw gradient, or g / (sqrt(v) + eps), by which Adam moves the weights."""


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """``tokens``, ``noise`` (tr Sigma) and ``signal`` (|G|^2), each [S, P]: the same P points measured with S seeds.

    ``points`` has one row for each point, with the columns that identify it. The estimate of |G|^2 is unbiased and may
    be negative. Its logarithm is biased where it is noisy, and leaving out the negative values removes rare experts
    above all. So noise and signal are averaged over seeds first, and a logarithm is taken only where the mean signal is
    significantly positive (the point is "resolved").
    """

    points: pd.DataFrame
    seeds: tuple[int, ...]
    tokens: NDArray[np.float64]
    noise: NDArray[np.float64]
    signal: NDArray[np.float64]

    @property
    def alive(self) -> NDArray[np.bool_]:
        """[P]: has tokens and noise in at least two seeds, so that any one of them can be left out."""
        return np.asarray(((self.noise > 0).sum(axis=0) > 1) & ((self.tokens > 0).sum(axis=0) > 1), dtype=np.bool_)

    @property
    def resolved(self) -> NDArray[np.bool_]:
        """[P]: alive, and the t-interval of the mean signal lies above 0; never with fewer than two seeds.

        The mean signal then stays positive without any one seed, since it falls by at most one standard error.
        """
        n = len(self.seeds)
        if n < MIN_SEEDS:
            return np.zeros(self.signal.shape[1], dtype=np.bool_)
        error = self.signal.std(axis=0, ddof=1) / math.sqrt(n)
        low = self.signal.mean(axis=0) - t_quantile(n - 1) * error
        return np.asarray(self.alive & (low > 0), dtype=np.bool_)

    def select(self, chosen: NDArray[np.bool_]) -> "Replicates":
        """Only the chosen points."""
        return Replicates(
            points=self.points[chosen],
            seeds=self.seeds,
            tokens=self.tokens[:, chosen],
            noise=self.noise[:, chosen],
            signal=self.signal[:, chosen],
        )

    def of_seeds(self, seeds: Sequence[int]) -> "Replicates":
        """Only these seeds, in this order."""
        rows = [self.seeds.index(seed) for seed in seeds]
        return Replicates(
            points=self.points,
            seeds=tuple(seeds),
            tokens=self.tokens[rows],
            noise=self.noise[rows],
            signal=self.signal[rows],
        )

    def without(self, seed: int) -> "Replicates":
        """All seeds but one, for the jackknife."""
        return self.of_seeds([s for s in self.seeds if s != seed])

    @property
    def log2_tokens(self) -> NDArray[np.float64]:
        """[P] log2 of the mean tokens; only of points that are alive."""
        return np.asarray(np.log2(self.tokens.mean(axis=0)))

    @property
    def signal_to_noise(self) -> NDArray[np.float64]:
        """[P] mean signal over mean noise, 1 / sigma^2, which may be negative; only of points that are alive."""
        return np.asarray(self.signal.mean(axis=0) / self.noise.mean(axis=0))

    @property
    def log2_sigma(self) -> NDArray[np.float64]:
        """[P] log2 sigma; only of resolved points."""
        return np.asarray(-np.log2(self.signal_to_noise) / 2)

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """[P] of log2 sigma, by the delta method from the spread over seeds; only of resolved points."""
        influence = self.noise / self.noise.mean(axis=0) - self.signal / self.signal.mean(axis=0)
        return np.asarray(influence.std(axis=0, ddof=1) / math.sqrt(len(self.seeds)) / (2 * math.log(2)))


def read_replicates(table: pd.DataFrame, keys: Sequence[str]) -> Replicates:
    """From columns ``keys``, seed, tokens, noise, signal, with one row for each point (``keys``) and seed.

    Raises KeyError for a missing column, ValueError for a repeated row, and JudgeError for a point that some seed
    lacks or whose values are not finite.
    """
    wide = table.pivot(index="seed", columns=list(keys), values=list(VALUES))
    if wide.empty:
        raise JudgeError("the noise table has no rows: measure at least one expert")
    for row, column in np.argwhere(~np.isfinite(wide.to_numpy(dtype=np.float64)))[:1]:
        value, *point = wide.columns[column]
        where = ", ".join(f"{k} {v}" for k, v in zip((*keys, "seed"), (*point, wide.index[row]), strict=True))
        raise JudgeError(f"the noise table has no finite {value} for {where}")
    tokens, noise, signal = (wide[name] for name in VALUES)
    return Replicates(
        points=tokens.columns.to_frame(index=False),
        seeds=tuple(int(seed) for seed in wide.index),
        tokens=tokens.to_numpy(dtype=np.float64),
        noise=noise.to_numpy(dtype=np.float64),
        signal=signal.to_numpy(dtype=np.float64),
    )


def mean_over_steps(table: pd.DataFrame, keys: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Each point (``keys``) with the mean of its ``values`` over the measured steps.

    JudgeError for a value that is not finite: pandas would skip it, and the mean would be over other steps.
    """
    bad = ~np.isfinite(table[list(values)].to_numpy(dtype=np.float64))
    for row, column in np.argwhere(bad)[:1]:
        where = ", ".join(f"{key} {table.iloc[row][key]}" for key in keys)
        raise JudgeError(f"the noise table has no finite {values[column]} for {where}")
    return table.groupby(list(keys), as_index=False)[list(values)].mean()


def select_form(table: pd.DataFrame, form: Form) -> pd.DataFrame:
    """Rows of a measurement with the noise and signal of one form of the gradient."""
    prefix = "adam_" if form == "adam" else ""
    chosen = table.assign(noise=table[f"{prefix}noise"], signal=table[f"{prefix}signal"])
    return chosen.drop(columns=["adam_noise", "adam_signal"])


MIN_POINTS = 3
MAX_GAMMA = 5.0
"""Beyond it the likelihood has no maximum: all signal sits in the experts with the most tokens."""
_NONE = t_interval([])


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

    ``ordinary``, ``weighted`` and ``robust`` fit the logarithms of ``points``, which are resolved, where that was
    asked for. ``unresolved`` counts the other points; ``gamma`` includes those of them that have tokens and noise.
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


def fit_gamma(table: pd.DataFrame, *, cross_checks: bool = False) -> GammaFit:
    """Fit the exponent of sigma against tokens for one kind of matrix in one layer.

    ``table`` has columns setting, seed, expert, tokens (mean per batch), noise (unbiased tr Sigma of the batch
    gradient) and signal (unbiased |G|^2, may be negative). ``cross_checks``: also fit the logarithms. Raises JudgeError
    for any other table.
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
    found = GammaFit(
        gamma=gamma, intercept=power_law(alive)[0], points=points, unresolved=unresolved, seeds=measured.seeds
    )
    if not cross_checks:
        return found
    ordinary, weighted, robust = (_jackknife(fit, kept) for fit in (_ordinary, _weighted, _robust))
    return replace(found, ordinary=ordinary, weighted=weighted, robust=robust)


def _jackknife(fit: Callable[[Replicates], float], kept: Replicates) -> Interval:
    """Leave out one seed at a time, with the points that were chosen from all seeds."""
    return jackknife_interval(fit(kept), [fit(kept.without(seed)) for seed in kept.seeds])


def power_law(alive: Replicates) -> tuple[float, float]:
    """Intercept and gamma of log2 sigma, fitted to 1 / sigma^2 itself; NaN where no power law has a likelihood.

    sum(model - measured * log(model)) is convex for any sign of the measured value. It is least where model and
    measured value have the same sum, and the same mean of log tokens.
    """
    x = 2 * math.log(2) * alive.log2_tokens
    ratio = alive.signal_to_noise
    total = ratio.sum()
    if total <= 0 or math.isclose(np.ptp(x), 0, abs_tol=1e-9):
        return math.nan, math.nan
    u, mean = x - x.mean(), ratio @ (x - x.mean()) / total

    def excess(gamma: float) -> float:
        model = np.exp(gamma * u)
        return float(model @ u / model.sum() - mean)

    if not excess(-MAX_GAMMA) <= 0 <= excess(MAX_GAMMA):
        return math.nan, math.nan
    gamma = float(scipy.optimize.brentq(excess, -MAX_GAMMA, MAX_GAMMA))
    level = math.log(total / np.exp(gamma * u).sum())
    return (gamma * x.mean() - level) / (2 * math.log(2)), gamma


def _ordinary(kept: Replicates) -> float:
    return -float(scipy.stats.linregress(kept.log2_tokens, kept.log2_sigma).slope)


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
    return -float(scipy.stats.theilslopes(kept.log2_sigma, kept.log2_tokens).slope)
