"""Gradient noise and signal over seeds, and which points have a signal that is known to be positive.

The estimate of |G|^2 is unbiased and may be negative. Its logarithm is biased where it is noisy, and leaving out the
negative values removes rare experts above all. So noise and signal are averaged over seeds first, and a logarithm is
taken only where the mean signal is significantly positive (the point is "resolved").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mue_check.errors import JudgeError
from mue_check.judge.interval import t_quantile

VALUES = ("tokens", "noise", "signal")
MIN_SEEDS = 2
Form = Literal["raw", "adam"]
"""The raw gradient, or g / (sqrt(v) + eps), by which Adam moves the weights."""


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """``tokens``, ``noise`` (tr Sigma) and ``signal`` (|G|^2), each [S, P]: the same P points measured with S seeds.

    ``points`` has one row for each point, with the columns that identify it.
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
