"""95 % t-intervals of a mean. Below 10 seeds a percentile bootstrap would cover the mean in only 41 to 86 %."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


def t_quantile(df: float) -> float:
    """Half-width of an interval at CONFIDENCE, in standard errors, for ``df`` degrees of freedom."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, df))


@dataclass(frozen=True)
class Interval:
    """``mean`` with ``low`` and ``high`` at 95 % confidence, from ``n`` independent values."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        """Half the interval, in the unit of the mean."""
        return (self.high - self.low) / 2

    @property
    def standard_error(self) -> float:
        """Standard error of the mean: half-width / t quantile for n - 1 degrees of freedom. Infinite for n < 2."""
        return float(self.half_width / t_quantile(self.n - 1)) if self.n > 1 else math.inf

    def text(self, digits: int = 2) -> str:
        """``mean [low, high]``."""
        return f"{self.mean:+.{digits}f} [{self.low:+.{digits}f}, {self.high:+.{digits}f}]"

    def __str__(self) -> str:
        return self.text()


def t_interval(values: Sequence[float]) -> Interval:
    """The t-interval of a mean; unbounded for fewer than two values."""
    n = len(values)
    mean = float(np.mean(values)) if n else math.nan
    if n < 2:
        return Interval(mean, -math.inf, math.inf, n)
    half = float(t_quantile(n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def jackknife_interval(estimate: float, without: Sequence[float]) -> Interval:
    """The jackknife interval of a statistic, from its values ``without`` each of n independent units in turn.

    It uses the t quantile for n - 1 degrees of freedom, and is unbounded for fewer than two units. The estimate itself
    is not corrected for bias, which would add more variance than it removes bias (Efron & Tibshirani 1993, chapter 11).
    """
    n = len(without)
    if n < 2:
        return Interval(estimate, -math.inf, math.inf, n)
    # (n - 1) / n times the sum of squares is the variance of the estimate
    half = float(t_quantile(n - 1) * np.std(without) * math.sqrt(n - 1))
    return Interval(estimate, estimate - half, estimate + half, n)
