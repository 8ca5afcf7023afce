"""Convergence speed-up: how many steps two models need to reach the same held-out loss, as a ratio."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mue_check.judge.interval import Interval, t_interval

LEVELS = 12


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """``ratios`` [S, K] of steps, reference over target, at descending ``levels`` [K] of the loss in nats.

    ``overall`` is the mean log2 ratio over the levels: +1 means that the target is twice as fast.
    """

    levels: NDArray[np.float64]
    ratios: NDArray[np.float64]
    overall: Interval

    @property
    def by_level(self) -> list[Interval]:
        """log2 of the ratio at each level, over seeds."""
        return [t_interval(list(column)) for column in np.log2(self.ratios).T]

    def __str__(self) -> str:
        best = self.by_level[-1]
        return (
            f"speed-up {2**self.overall.mean:.2f} times, log2 {self.overall}; at the lowest shared loss "
            f"{self.levels[-1]:.3f} nats log2 {best}"
        )


def compare_learning(reference: pd.DataFrame, target: pd.DataFrame) -> Speedup:
    """Compare two learning_curve tables with the same seeds. NaN if there is no loss that all runs reach."""
    ours, theirs = (_curves(table) for table in (reference, target))
    curves = (*ours.values(), *theirs.values())
    # every run reaches all levels, and none begins below the highest
    high = min(float(losses[0]) for _, losses in curves)
    low = max(float(losses[-1]) for _, losses in curves)
    seeds = [seed for seed in ours if seed in theirs]
    if not low < high or not seeds:
        return Speedup(levels=np.array([np.nan]), ratios=np.full((1, 1), np.nan), overall=t_interval([]))
    levels = np.linspace(high, low, LEVELS + 1)[1:]
    ratios = np.array([_steps_at(ours[seed], levels) / _steps_at(theirs[seed], levels) for seed in seeds])
    return Speedup(levels=levels, ratios=ratios, overall=t_interval([float(row.mean()) for row in np.log2(ratios)]))


_Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def _curves(table: pd.DataFrame) -> dict[int, _Curve]:
    """By seed, the steps and the running minimum of the loss."""
    curves: dict[int, _Curve] = {}
    for seed, rows in table.sort_values("step").groupby("seed"):
        losses = rows["loss"].to_numpy(dtype=np.float64)
        losses = np.minimum.accumulate(np.where(np.isfinite(losses), losses, np.inf))
        curves[int(str(seed))] = (rows["step"].to_numpy(dtype=np.float64), losses)
    return curves


def _steps_at(curve: _Curve, levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The steps at which the running minimum reaches each level, interpolated in log2(step)."""
    steps, losses = curve
    # where the running minimum is constant, keep the first step
    fallen, first = np.unique(-losses, return_index=True)
    return np.asarray(2.0 ** np.interp(-levels, fallen, np.log2(steps[first])), dtype=np.float64)
