"""An order test: whether the loss falls from each model of a ladder to the next, paired by seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mue_check.judge.interval import Interval, Looks, look_level, t_interval
from mue_check.judge.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Order:
    """``losses`` [K], the mean loss of each model in nats, and ``falls`` [K - 1], how far it changes to the next.

    The verdict is PASS if every change is surely below 0. That every one of several tests must reject needs no
    correction for their number (intersection-union test: R. L. Berger, Technometrics 24, 1982, 295-300). It is FAIL if
    any change is surely above 0, at a level divided by their number (Bonferroni).
    """

    losses: tuple[float, ...]
    changes: tuple[Interval, ...]
    verdict: Verdict

    def __str__(self) -> str:
        losses = ", ".join(f"{loss:.3f}" for loss in self.losses)
        return f"losses {losses}; changes {', '.join(change.text(3) for change in self.changes)} nats"


def judge_order(tables: Sequence[pd.DataFrame], looks: Looks = ()) -> Order:
    """Compare loss_grid tables [K] with one value and the same seeds. A loss that is not finite is FAIL.

    ``looks`` are the numbers of seeds at which they are compared.
    """
    losses = pd.concat([table.set_index("seed")["loss"] for table in tables], axis=1, join="inner").to_numpy()
    changes, level = [list(column) for column in np.diff(losses).T], look_level(looks)
    if not np.isfinite(losses).all():
        unknown = Interval(math.nan, math.nan, math.nan, 0)
        return Order(losses=_means(losses), changes=(unknown,) * len(changes), verdict=Verdict.FAIL)
    found = tuple(t_interval(change, level) for change in changes)
    rises = any(t_interval(change, level / len(changes)).low > 0 for change in changes)
    falls = all(change.high < 0 for change in found)
    verdict = Verdict.FAIL if rises else Verdict.PASS if falls else Verdict.INCONCLUSIVE
    return Order(losses=_means(losses), changes=found, verdict=verdict)


def _means(losses: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(map(float, losses.mean(axis=0)))
