"""Judge a study's questions from its stored records alone: no training, no torch."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from mue_check.judge.drift import Drift, judge_drift
from mue_check.judge.law import LawResult, Rung, judge_law
from mue_check.judge.laws import LAWS
from mue_check.judge.optimum import Curve
from mue_check.questions.comparison import Comparison, Side
from mue_check.records import Store
from mue_check.sigma0.gammas import Gammas, feed_forward, judge_gammas
from mue_check.sigma0.ladders import NATURAL
from mue_check.sigma0.shift import Sigma0Shift, sigma0_shift

_OF_A_ROUTER = ("router_logits", "weight.router")


def curve_of(tables: Sequence[pd.DataFrame], *, first_seed: int = 0) -> Curve:
    """The loss-vs-LR curve in loss_grid tables, with replicates in place of seeds.

    Values that some replicate lacks are left out: a mean over other seeds is another mean.
    """
    rows = pd.concat(tables, ignore_index=True).drop_duplicates(["seed", "value"])
    grid = rows.pivot(index="seed", columns="value", values="loss").sort_index()
    # a loss that is NaN because it diverged is present; a pair that was never run is not
    present = rows.assign(one=1).pivot(index="seed", columns="value", values="one").notna().all(axis=0)
    grid = grid.loc[:, present]
    initial = rows.groupby("seed")["initial"].first()
    return Curve(
        values=grid.columns.to_numpy(dtype=np.float64),
        seeds=tuple(int(seed) - first_seed for seed in grid.index),
        losses=grid.to_numpy(dtype=np.float64),
        initial=initial.to_numpy(dtype=np.float64),
    )


def read_curve(store: Store, cells: Iterable[str], *, first_seed: int = 0) -> Curve:
    """The curve in stored cells, by their keys."""
    return curve_of([store.rows(key) for key in cells], first_seed=first_seed)


def judge_stored_drift(store: Store, comparison: Comparison) -> tuple[Curve, Curve, Drift]:
    """Both curves of a drift and what the judge says of them."""
    reference, target = (read_curve(store, side.cells, first_seed=side.first_seed) for side in comparison.sides)
    return reference, target, judge_drift(reference, target, comparison.tolerance, comparison.residual)


def judge_stored_gammas(store: Store, comparison: Comparison) -> Gammas:
    """Gamma of every matrix over the loads of a comparison."""
    tables = {side.label: side_table(store, side) for side in comparison.sides}
    return judge_gammas(tables, ranked=[*tables] == [NATURAL])


def judge_stored_shift(store: Store, comparison: Comparison) -> Sigma0Shift:
    """The shift of log2 sigma_0 between the two sides."""
    reference, target = (feed_forward(side_table(store, side)) for side in comparison.sides)
    return sigma0_shift(target, reference)


def side_table(store: Store, side: Side) -> pd.DataFrame:
    """All rows of a side's cells, one table."""
    return pd.concat([store.rows(key) for key in side.cells], ignore_index=True)


def law_rungs(store: Store, sides: Sequence[Side]) -> list[Rung]:
    """The stored coordinates of each side, in ascending size."""
    return [Rung(label=side.label, size=side.size, table=side_table(store, side)) for side in sides]


def judge_coordinates(ladder: str, rungs: Sequence[Rung]) -> list[LawResult]:
    """Judge the laws of the ladder of that name on its rungs.

    A user's router may keep its logits to itself, or have no matrix: its laws then have nothing to look at.
    """
    measured = set(rungs[0].table["coordinate"])
    absent = [c for c in _OF_A_ROUTER if not any(name.endswith(c) for name in measured)]
    return [judge_law(law, rungs) for law in LAWS[ladder] if law.coordinate not in absent]
