"""Convergence speed-up: how many steps two models need to reach the same held-out loss, as a ratio."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mue_check.judge.interval import Interval, t_interval


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """``ratios`` [S, K]: log2 of the reference's steps over the target's, if both train for ``horizons`` [K] steps.

    The steps are those to the higher of the two final losses: where the target ends lower, to the reference's. +1 means
    that the target is twice as fast.
    """

    horizons: NDArray[np.int64]
    ratios: NDArray[np.float64]

    @property
    def by_horizon(self) -> list[Interval]:
        """log2 of the ratio at each horizon, over seeds."""
        return [t_interval(list(column)) for column in self.ratios.T]

    @property
    def overall(self) -> Interval:
        """log2 of the ratio at the longest horizon, without an interval if the two share no loss."""
        return self.by_horizon[-1] if np.isfinite(self.ratios[:, -1]).all() else t_interval([])

    def __str__(self) -> str:
        return f"speed-up {2**self.overall.mean:.2f} times at {self.horizons[-1]} steps, log2 {self.overall}"


def compare_learning(reference: pd.DataFrame, target: pd.DataFrame) -> Speedup:
    """Compare two learning_curve tables at a constant learning rate, where each step could be the last.

    The ratios are NaN where the losses of the two have no value in common.
    """
    ours, theirs = (table.pivot(index="step", columns="seed", values="loss") for table in (reference, target))
    steps = ours.index.to_numpy(dtype=np.int64)
    ratios = [
        [
            _log2_ratio(steps[:n], ours[seed].to_numpy()[:n], theirs[seed].to_numpy()[:n])
            for n in range(2, len(steps) + 1)
        ]
        for seed in ours.columns.intersection(theirs.columns)
    ]
    return Speedup(horizons=steps[1:], ratios=np.array(ratios or [[np.nan] * (len(steps) - 1)]))


def _log2_ratio(steps: NDArray[np.int64], reference: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """log2 of the ratio of steps [K] for losses [K], up to the last step; NaN if a loss up to there is not finite."""
    lowest = [np.minimum.accumulate(losses) for losses in (reference, target)]
    loss = max(losses[-1] for losses in lowest)
    if not np.isfinite([reference, target]).all() or loss > min(losses[0] for losses in lowest):
        return math.nan
    ours, theirs = (_log2_steps_to(loss, steps, losses) for losses in lowest)
    return ours - theirs


def _log2_steps_to(loss: float, steps: NDArray[np.int64], lowest: NDArray[np.float64]) -> float:
    """log2 of the step at which ``lowest`` [K] first is ``loss``, interpolated in log2 of the step."""
    # where the running minimum is constant, keep the first step
    fallen, first = np.unique(-lowest, return_index=True)
    return float(np.interp(-loss, fallen, np.log2(steps[first])))
