"""Compare two early loss curves at one learning rate: level and trend of their log-ratio, over seeds."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mue_check.judge.interval import Interval, Looks, look_level, t_interval
from mue_check.judge.verdict import Verdict, join, judge_interval, judge_upper

TREND_TOLERANCE = 0.01
"""Octaves of loss per doubling of the step. Over 100 steps this lets the target fall 5 % behind the reference."""
LEVEL_TOLERANCE = 0.1
"""Octaves of loss, 7 %, by which the mean of the target's curve may lie above the reference's. Measured on the Markov
source: -0.06 (four times the width) to +0.002 octave."""
START_TOLERANCE = 0.25
"""Octaves of loss, either way, before the first update: no model has learned anything there. Measured: at most 0.07."""
_DIVERGED = Interval(math.inf, math.inf, math.inf, 0)


@dataclass(frozen=True, kw_only=True)
class EarlyComparison:
    """log2(target loss / reference loss): ``start`` before the first update, ``level`` over all steps, ``trend`` per
    doubling of the step.

    The claim is no widening trend (arXiv 2605.23893). A negative trend means that the target learns faster.
    ``learning`` is the trend of the reference's own log2 loss. ``reason`` says why the verdict is not PASS.
    """

    start: Interval
    level: Interval
    trend: Interval
    learning: Interval
    verdict: Verdict
    reason: str | None

    def __str__(self) -> str:
        why = f"; {self.reason}" if self.reason else ""
        return f"log2 loss ratio {self.level.text(4)}, trend per doubling of steps {self.trend.text(4)}{why}"


def log2_ratio(reference: pd.DataFrame, target: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps [T] and log2(target loss / reference loss) [S, T] of two early_curve tables; their seeds pair in order."""
    (steps, ours), (_, theirs) = (_log2_losses(table) for table in (reference, target))
    with np.errstate(invalid="ignore"):
        return steps, theirs - ours


def _log2_losses(table: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps [T] and log2 of the losses [S, T], NaN or infinite where a loss is missing or not positive."""
    losses = table.pivot(index="seed", columns="step", values="loss")
    with np.errstate(divide="ignore", invalid="ignore"):
        return losses.columns.to_numpy(dtype=np.int64), np.log2(losses.to_numpy(dtype=np.float64))


def compare_early(reference: pd.DataFrame, target: pd.DataFrame, looks: Looks = ()) -> EarlyComparison:
    """Compare two early_curve tables with equally many seeds. FAIL if a loss is not a positive number.

    INCONCLUSIVE if the reference itself does not learn: a target that learns nothing would then keep up with it.
    ``looks`` are the numbers of seeds at which they are compared.
    """
    error = look_level(looks)
    (steps, ratio), (_, ours) = log2_ratio(reference, target), _log2_losses(reference)
    if not np.isfinite(ratio).all():
        unknown = dict.fromkeys(("start", "level", "trend", "learning"), _DIVERGED)
        return EarlyComparison(**unknown, verdict=Verdict.FAIL, reason="a run diverged within these steps")
    x = np.log2(steps + 1.0)
    start, level = (t_interval(list(values), error) for values in (ratio[:, 0], ratio.mean(axis=1)))
    trend, learning = (t_interval(list(np.polyfit(x, rows.T, 1)[0]), error) for rows in (ratio, ours))
    verdicts = {
        f"the losses before the first update differ by {start.text(3)} octaves": judge_interval(start, START_TOLERANCE),
        f"the target lies {level.text(3)} octaves above the reference": judge_upper(level, LEVEL_TOLERANCE),
        f"the target falls behind by {trend.text(4)} octaves per doubling": judge_upper(trend, TREND_TOLERANCE),
    }
    if not learning.high < -TREND_TOLERANCE:
        what = f"the reference does not learn: its loss changes by {learning.text(4)} octaves per doubling of the step"
        verdicts[what] = Verdict.INCONCLUSIVE
    verdict = join(verdicts.values())
    return EarlyComparison(
        start=start,
        level=level,
        trend=trend,
        learning=learning,
        verdict=verdict,
        reason="; ".join(what for what, each in verdicts.items() if each is not Verdict.PASS) or None,
    )
