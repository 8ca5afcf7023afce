"""Compare two early loss curves at one learning rate: level and trend of their log-ratio, over seeds."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mue_check.judge.interval import Interval, Looks, look_level, t_interval
from mue_check.judge.verdict import Verdict

_DIVERGED = Interval(math.inf, math.inf, math.inf, 0)
TREND_TOLERANCE = 0.01
"""Octaves of loss per doubling of the step. Over 100 steps this lets the target fall 5 % behind the reference."""


@dataclass(frozen=True, kw_only=True)
class EarlyComparison:
    """log2(target loss / reference loss): ``level`` over all steps, ``trend`` per doubling of the step.

    The claim is no widening trend (arXiv 2605.23893). A negative trend means that the target learns faster.
    """

    level: Interval
    trend: Interval

    @property
    def verdict(self) -> Verdict:
        """PASS if the whole interval of the trend lies at or below TREND_TOLERANCE, FAIL if all of it lies above."""
        if self.trend.high <= TREND_TOLERANCE:
            return Verdict.PASS
        return Verdict.FAIL if self.trend.low > TREND_TOLERANCE else Verdict.INCONCLUSIVE

    def __str__(self) -> str:
        return f"log2 loss ratio {self.level.text(4)}, trend per doubling of steps {self.trend.text(4)}"


def log2_ratio(reference: pd.DataFrame, target: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps [T] and log2(target loss / reference loss) [S, T] of two early_curve tables with the same seeds."""
    ours, theirs = (table.pivot(index="seed", columns="step", values="loss") for table in (reference, target))
    ratio = np.log2(theirs.to_numpy(dtype=np.float64) / ours.to_numpy(dtype=np.float64))
    return ours.columns.to_numpy(dtype=np.int64), ratio


def compare_early(reference: pd.DataFrame, target: pd.DataFrame, looks: Looks = ()) -> EarlyComparison:
    """Compare two early_curve tables with the same seeds. The intervals are unbounded if a loss is not finite.

    ``looks`` are the numbers of seeds at which they are compared.
    """
    steps, ratio = log2_ratio(reference, target)
    if not np.isfinite(ratio).all():
        return EarlyComparison(level=_DIVERGED, trend=_DIVERGED)
    x = np.log2(steps + 1.0)
    levels = [float(row.mean()) for row in ratio]
    trends = [float(np.polyfit(x, row, 1)[0]) for row in ratio]
    error = look_level(looks)
    return EarlyComparison(level=t_interval(levels, error), trend=t_interval(trends, error))
