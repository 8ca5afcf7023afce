"""95 % t-intervals of a mean, also where seeds are added until the answer is clear.

Below 10 seeds a percentile bootstrap would cover the mean in only 41 to 86 %.

Reading a plain interval again and again while seeds are added spoils it: where the true drift equals the tolerance, it
covers 0.88 over looks 4..8. So all looks share one nominal level that is lower than 5 %. Together the intervals of all
looks then contain the mean with 95 %, whatever rule decides when to stop.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy import special

from mue_check.errors import JudgeError

PLAIN = 0.05
"""The two-sided level of an interval that is read once."""
CONFIDENCE = 1 - PLAIN
Z = float(special.ndtri(1 - PLAIN / 2))

Looks = tuple[int, ...]
"""Ascending numbers of seeds at which a verdict is read, fixed before the first of them. Empty where the number of
seeds was fixed, or not stored."""
_EVERY_LOOK = {(4, 8): 0.0178, (4, 12): 0.0125}
"""Levels for a look at every number of seeds from first to last, calibrated with 1e6 sequences of normal values."""


def look_level(looks: Looks) -> float:
    """The two-sided level of the interval at each look, such that together they cover 95 %.

    The formula was fitted for a look at every number from 4 up to 64; up to 1000 it still covers 0.947. Few looks far
    apart are better served by an equal share of the 5 % for each (Bonferroni), which is valid for any looks.
    JudgeError unless they ascend.
    """
    if list(looks) != sorted(set(looks)) or any(n < 2 for n in looks):
        raise JudgeError(f"looks at {looks_text(looks)} seeds: ascending numbers from 2 are needed")
    if len(looks) < 2:
        return PLAIN
    first, last = looks[0], looks[-1]
    ratio = math.log(last / first)
    fitted = 0.94 * PLAIN / (1 + 1.964 * math.pow(first, 0.158) * ratio * math.pow(1 + ratio, 0.169))
    return max(PLAIN / len(looks), _EVERY_LOOK.get((first, last), fitted))


def looks_text(looks: Looks) -> str:
    """``4..12`` for a look at every number of seeds, else ``12, 24, 48``."""
    if len(looks) > 2 and looks == tuple(range(looks[0], looks[-1] + 1)):
        return f"{looks[0]}..{looks[-1]}"
    return ", ".join(map(str, looks))


@cache
def t_quantile(df: float, level: float = PLAIN) -> float:
    """Half-width of an interval at a two-sided ``level``, in standard errors, for ``df`` degrees of freedom."""
    return float(special.stdtrit(df, 1 - level / 2))


@dataclass(frozen=True)
class Interval:
    """``mean`` with ``low`` and ``high``, from ``n`` independent values.

    ``level`` is the nominal two-sided level at this n: 5 %, or less at one of several looks (``look_level``). ``df``
    are the degrees of freedom where they are not n - 1. ``shared`` is the standard error of what all values have in
    common: it is read once, however many looks there are, so its part of the interval is that of a single look.
    """

    mean: float
    low: float
    high: float
    n: int
    level: float = PLAIN
    df: float | None = None
    shared: float = 0.0

    @property
    def half_width(self) -> float:
        """Half the interval, in the unit of the mean."""
        return (self.high - self.low) / 2

    @property
    def own_error(self) -> float:
        """Standard error over the values, without what they share."""
        own = math.sqrt(max(self.half_width**2 - (Z * self.shared) ** 2, 0.0))
        return own / t_quantile(self.n - 1 if self.df is None else self.df, self.level)

    @property
    def standard_error(self) -> float:
        """Standard error of the mean. Infinite for n < 2."""
        return math.hypot(self.own_error, self.shared) if self.n > 1 else math.inf

    @property
    def plain_half_width(self) -> float:
        """Half-width of the 95 % interval for a number of values that was fixed: the precision of the mean."""
        if self.n < 2:
            return math.inf
        df = self.n - 1 if self.df is None else self.df
        return math.hypot(t_quantile(df) * self.own_error, Z * self.shared)

    def moved(self, by: float) -> "Interval":
        """The interval of the values plus a constant."""
        return replace(self, mean=self.mean + by, low=self.low + by, high=self.high + by)

    def as_json(self) -> dict[str, float | None]:
        """Mean, low, high and n; None stands for an unbounded end, and for the mean of nothing."""
        ends = {"mean": self.mean, "low": self.low, "high": self.high}
        return {name: float(end) if math.isfinite(end) else None for name, end in ends.items()} | {"n": self.n}

    def text(self, digits: int = 2) -> str:
        """``mean [low, high]``."""
        return f"{self.mean:+.{digits}f} [{self.low:+.{digits}f}, {self.high:+.{digits}f}]"

    def __str__(self) -> str:
        return self.text()


def t_interval(values: Sequence[float], level: float = PLAIN, *, least_sd: float = 0.0) -> Interval:
    """The t-interval of a mean at a two-sided ``level``; unbounded for fewer than two values.

    ``least_sd`` is a lower bound for the standard deviation of the values, in their unit.
    """
    n = len(values)
    mean = float(np.mean(values)) if n else math.nan
    if n < 2:
        return Interval(mean, -math.inf, math.inf, n, level)
    half = float(t_quantile(n - 1, level) * max(float(np.std(values, ddof=1)), least_sd) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n, level)


def two_part_interval(mean: float, se: float, df: float, n: int, level: float, *, shared: float) -> Interval:
    """An interval from a standard error over ``n`` values and one that all ``shared``, combined in quadrature."""
    half = math.hypot(t_quantile(df, level) * se, Z * shared)
    return Interval(mean, mean - half, mean + half, n, level, df, shared)


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
