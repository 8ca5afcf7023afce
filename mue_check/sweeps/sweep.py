"""A sweep: runs with their learning rate, loss, arm and replicate, cleaned, and what the cleaning found."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mue_check.errors import JudgeError
from mue_check.judge.drift import MIN_SEEDS
from mue_check.judge.optimum import WINDOW, Curve, mean_minimum
from mue_check.sweeps.columns import FEWEST_RATES, Choice, Columns, find_columns
from mue_check.sweeps.layouts import ENDED
from mue_check.sweeps.names import factor_of, meaning_of, names_of

SAME_RATE = math.log2(1.01)
"""Octaves: learning rates this close are one rate in two roundings."""
_STEP = 4.0
"""A grid steps by at least so many times SAME_RATE."""
LEFT_VALLEY = 20.0
"""A run diverged if its loss is so many times further above the lowest of its curve than the median loss is."""
_STOPPED = 0.9
"""A run was stopped early if it ended before this share of the longest of its curve."""
_UNFINISHED = re.compile(r"running|pruned|waiting|pending|queued|paused|preempt", re.IGNORECASE)
_FAILED = re.compile(r"crash|fail|error|killed|oom", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The runs of one model. ``size`` is what its label says in numbers, NaN where it says none."""

    label: str
    size: float


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Runs as rows of ``frame``: log2 rate ``x``, the losses, ``arm`` label, ``cell`` and ``seed``, ``diverged``.

    A cell is a setting of the paired columns. Rows without a loss are no longer there, unless they diverged. ``said``
    is what was done to the rows, ``table`` are the rows with all their columns.
    """

    frame: pd.DataFrame
    table: pd.DataFrame
    columns: Columns
    arms: tuple[Arm, ...]
    said: tuple[str, ...]

    @property
    def cells(self) -> list[str]:
        """All settings of the paired columns."""
        return list(self.frame.cell.unique())

    @property
    def seeds(self) -> list[str]:
        """All seeds; one without a name where the table has none."""
        return list(self.frame.seed.unique())

    @property
    def cells_are_replicates(self) -> bool:
        """Whether there are enough cells; with fewer, each seed of each cell is a replicate."""
        return len(self.cells) >= MIN_SEEDS

    @cached_property
    def is_seeded(self) -> bool:
        """Whether it is a sweep as the suites make them: one setting, enough seeds, and enough rates that all ran."""
        return len(self.cells) == 1 and len(self.seeds) >= MIN_SEEDS and all(map(self._has_whole_seeds, self.arms))

    def _has_whole_seeds(self, arm: Arm) -> bool:
        rates = self.frame[self.frame.arm == arm.label].x.nunique()
        curve = self.seeded_curve(arm, self.columns.losses[0])
        has_minimum = mean_minimum(curve) >= 0 or not np.isfinite(curve.losses).any()
        return has_minimum and len(curve.values) >= min(WINDOW, rates)

    @property
    def replicates(self) -> dict[str, tuple[str, str]]:
        """By the name of a replicate, as in ``curves``: its cell and its seed."""
        alone = self.cells_are_replicates or len(self.seeds) == 1
        found = self.frame[["cell", "seed"]].drop_duplicates().itertuples(index=False, name=None)
        return {str(cell if alone else f"{cell} seed {seed}"): (cell, "" if alone else seed) for cell, seed in found}

    def curves(self, arm: Arm, loss: str) -> dict[str, Curve]:
        """One curve for each replicate of an arm, by its name."""
        own = self.frame[self.frame.arm == arm.label]
        by = own.cell if self.cells_are_replicates or len(self.seeds) == 1 else own.cell + " seed " + own.seed
        grid = _grid(own, loss, by)
        x, losses = grid.columns.to_numpy(), grid.to_numpy()
        ran = [~np.isnan(row) for row in losses]
        return {
            str(name): _curve(x[own], row[None, own], (0,))
            for name, row, own in zip(grid.index, losses, ran, strict=True)
        }

    def seeded_curve(self, arm: Arm, loss: str) -> Curve:
        """One curve with all seeds of an arm. Seeds of one name pair with each other across arms.

        Rates that some seed did not run are left out: their mean would be over other seeds. So is a seed that diverged
        everywhere, where others did not.
        """
        own = self.frame[self.frame.arm == arm.label]
        grid = _grid(own, loss, own.seed)
        alive = pd.Series(np.isfinite(grid).any(axis=1))
        grid = (grid[alive] if alive.any() else grid).dropna(axis=1)
        place = {seed: at for at, seed in enumerate(self.seeds)}
        return _curve(grid.columns.to_numpy(), grid.to_numpy(), tuple(place[seed] for seed in grid.index))


def _grid(rows: pd.DataFrame, loss: str, by: "pd.Series") -> pd.DataFrame:
    """Losses [by, log2 rate]: the mean of the runs there, infinite if one diverged, NaN where none was made."""
    losses = rows[loss].where(~rows.diverged, math.inf)
    grid: pd.DataFrame = losses.groupby([by, rows.x]).mean().unstack()
    return grid


def _curve(x: NDArray[np.float64], losses: NDArray[np.float64], seeds: tuple[int, ...]) -> Curve:
    # what diverged is infinite already: the initial loss, which sweeps do not have, decides nothing
    initial = np.full(len(losses), np.finfo(np.float64).max)
    return Curve(values=np.exp2(x), seeds=seeds, losses=losses, initial=initial)


def make_sweep(table: pd.DataFrame, choice: Choice) -> Sweep:
    """Clean a table of runs. JudgeError where nothing is left to judge."""
    said: list[str] = []
    columns = find_columns(table, choice)
    table = _in_nats(_finished(table, columns, said), columns, said)
    loss = columns.losses[0]
    x = _octaves(table[columns.x], columns.x, said)
    table, x = table[x.notna()], x[x.notna()]
    if table[loss].replace(math.inf, math.nan).notna().sum() == 0:
        raise JudgeError(f"column {loss!r} has no finite loss")
    frame = table[list(columns.losses)].assign(x=_merged(x, columns.x, said))
    frame["arm"] = "all runs" if columns.arm is None else table[columns.arm].map(label_of)
    frame["cell"] = [", ".join(f"{k} {label_of(v)}" for k, v in row.items()) for row in _rows(table, columns.pair)]
    frame["seed"] = _seeds(frame, table, columns, said)
    frame = _without_twins(frame, table, columns, said)
    frame = _without_accidents(_counted(frame, table.loc[frame.index], columns, said), loss, said)
    if ENDED in table:
        frame = _uninterrupted(frame.join(table[ENDED]), said)
    if frame.x.nunique() < 3:
        raise JudgeError(f"column {columns.x!r} has {frame.x.nunique()} different values: an optimum needs 5")
    return Sweep(
        frame=frame.assign(diverged=_diverged(frame, columns)),
        table=table.loc[frame.index],
        columns=columns,
        arms=_arms([str(label) for label in frame.arm.unique()]),
        said=tuple(said),
    )


def label_of(value: object) -> str:
    """A value as text; a whole number without a point."""
    if isinstance(value, float | np.floating):
        return str(int(value)) if math.isfinite(value) and value == int(value) else f"{value:.6g}"
    return str(value)


def _rows(table: pd.DataFrame, names: Sequence[str]) -> list[dict[str, object]]:
    return [dict(zip(names, row, strict=True)) for row in table[list(names)].itertuples(index=False, name=None)]


def _finished(table: pd.DataFrame, columns: Columns, said: list[str]) -> pd.DataFrame:
    """Without unfinished runs; the loss of a failed run is infinite, as it most often diverged."""
    states = [name for name in names_of(table) if meaning_of(name) == "state"]
    if not states:
        return table
    state = table[states[0]].astype(str)
    unfinished, failed = state.str.contains(_UNFINISHED), state.str.contains(_FAILED)
    if unfinished.any():
        said.append(f"left out: {unfinished.sum()} of {len(table)} runs, in state {state[unfinished].iloc[0]!r}")
    if failed.any():
        said.append(f"counted as diverged: {failed.sum()} of {len(table)} runs, in state {state[failed].iloc[0]!r}")
    lost = {loss: table[loss].where(~failed, math.inf) for loss in columns.losses}
    return table.assign(**lost).loc[~unfinished]


def _in_nats(table: pd.DataFrame, columns: Columns, said: list[str]) -> pd.DataFrame:
    """With perplexities as their logarithms: a valley is a parabola in the loss, and not in its exponential."""
    losses = [loss for loss in columns.losses if re.search("ppl|perplexity", loss.lower())]
    if not losses or (table[losses] <= 0).any(axis=None):
        return table
    said.append(f"{', '.join(map(repr, losses))} is read as its logarithm")
    return table.assign(**{loss: np.log(table[loss]) for loss in losses})


def _octaves(rates: "pd.Series", name: str, said: list[str]) -> "pd.Series":
    """log2 of the rates, NaN where there is none."""
    if rates.isna().any():
        said.append(f"left out: {rates.isna().sum()} of {len(rates)} rows, without {name!r}")
    if meaning_of(name) == "log rate":
        raise JudgeError(f"column {name!r} does not say the base of its logarithm: call it log2_lr, log10_lr or ln_lr")
    scale = {"log2 rate": 1.0, "log10 rate": math.log2(10), "ln rate": math.log2(math.e)}.get(meaning_of(name))
    if scale is not None:
        return rates * (-scale if name.strip().startswith(("-", "\N{MINUS SIGN}")) else scale)
    if (factor := factor_of(name)) != 1:
        said.append(f"{name!r} is read as {factor:g} times its cells")
        rates = rates * factor
    if (wrong := rates[~rates.isna() & ~((rates > 0) & np.isfinite(rates))]).size:
        raise JudgeError(f"column {name!r} has the value {wrong.iloc[0]:g}: learning rates are above 0 and finite")
    return rates.map(math.log2, na_action="ignore")


def _merged(x: "pd.Series", name: str, said: list[str]) -> "pd.Series":
    """The log2 rates, with those that are one rate in two roundings made equal."""
    distinct = np.sort(x.unique())
    gaps = np.diff(distinct)
    same, steps = gaps <= SAME_RATE, gaps[gaps > SAME_RATE]
    # a random search has rates of all distances; two roundings are far closer than the steps of a grid
    if not same.any() or steps.min(initial=math.inf) < _STEP * SAME_RATE:
        return x
    group = np.concatenate([[0], np.cumsum(~same)])
    mean = {value: distinct[group == at].mean() for value, at in zip(distinct, group, strict=True)}
    first = int(np.argmax(same))
    twins = f"{2 ** distinct[first]:.7g} and {2 ** distinct[first + 1]:.7g}"
    said.append(f"{len(distinct)} values of {name!r} are {len(steps) + 1} in two roundings, such as {twins}: made one")
    return x.map(mean)


def _without_twins(frame: pd.DataFrame, table: pd.DataFrame, columns: Columns, said: list[str]) -> pd.DataFrame:
    """Without rows that stand in the table twice, and without rows that have no loss."""
    empty = frame[columns.losses[0]].isna()
    if empty.any():
        said.append(f"left out: {empty.sum()} of {len(empty)} rows, without {columns.losses[0]!r}")
    twins = table.astype(str).duplicated() & ~empty
    if twins.any():
        said.append(f"{twins.sum()} rows stand there twice: counted once")
    kept: pd.DataFrame = frame.loc[~empty & ~twins]
    return kept


def _without_accidents(frame: pd.DataFrame, loss: str, said: list[str]) -> pd.DataFrame:
    """Without runs that have no finite loss at a rate below the best one of their curve: no rate was too high there."""
    curve = [frame.arm, frame.cell, frame.seed]
    is_best = frame[loss] == frame[loss].groupby(curve).transform("min")
    lost = ~np.isfinite(frame[loss]) & (frame.x < frame.x.where(is_best).groupby(curve).transform("min"))
    if lost.any():
        said.append(
            f"left out: {lost.sum()} of {len(lost)} runs, without a finite loss below the best rate of their curve"
        )
    kept: pd.DataFrame = frame.loc[~lost]
    return kept


def _seeds(frame: pd.DataFrame, table: pd.DataFrame, columns: Columns, said: list[str]) -> "pd.Series | str":
    """The seed of every run; empty where there is none, or where runs of one curve do not share it."""
    if columns.seed is None:
        return ""
    seeds = table[columns.seed].map(label_of)
    if frame.x.groupby([frame.arm, frame.cell, seeds]).nunique().median() >= FEWEST_RATES:
        return seeds
    said.append(f"{columns.seed!r} differs from run to run, so it joins no runs to a curve: not counted as seeds")
    return ""


def _counted(frame: pd.DataFrame, table: pd.DataFrame, columns: Columns, said: list[str]) -> pd.DataFrame:
    """Runs that differ in nothing are seeds, if every point has as many; else their mean counts."""
    point = [frame.arm, frame.cell, frame.seed, frame.x]
    size = frame.groupby(point)[columns.losses[0]].transform("size")
    if (size == 1).all():
        return frame
    most = int(size.max())
    others = table[[name for name in columns.design if name not in (columns.arm, *columns.pair)]]
    are_equal = bool((others.groupby(point).nunique() <= 1).all(axis=None)) if len(others.columns) else True
    if not frame.seed.any() and are_equal and (size == most).all():
        said.append(f"no column tells seeds apart, but every point has {most} runs: they are taken as seeds")
        return frame.assign(seed=frame.groupby(point).cumcount().map(str))
    said.append(f"{(size > 1).sum()} runs share their point with others, up to {most}: the mean of their losses counts")
    return frame


def _uninterrupted(frame: pd.DataFrame, said: list[str]) -> pd.DataFrame:
    """Without runs that were stopped early: their losses are those of shorter runs."""
    longest = frame.groupby([frame.arm, frame.cell])[ENDED].transform("max")
    stopped = (frame[ENDED] < _STOPPED * longest) & (frame[frame.columns[0]] < math.inf)
    if stopped.any():
        said.append(
            f"left out: {stopped.sum()} of {len(stopped)} runs, "
            f"stopped before {_STOPPED:.0%} of the longest of their curve"
        )
    kept: pd.DataFrame = frame.loc[~stopped]
    return kept


def _diverged(frame: pd.DataFrame, columns: Columns) -> "pd.Series":
    """Runs without a finite loss, and those that left the valley at a learning rate above the optimum."""
    loss = frame[columns.losses[0]]
    curve = [frame.arm, frame.cell, frame.seed]
    finite = loss.where(np.isfinite(loss))
    height = finite - finite.groupby(curve).transform("min")
    best = frame.x.where(height == 0).groupby(curve).transform("max")
    far = height > LEFT_VALLEY * height.groupby(curve).transform("median")
    return finite.isna() | (far & (frame.x > best))


def _arms(labels: Sequence[str]) -> tuple[Arm, ...]:
    """In the order of their sizes, where every label is a number, or the same text around one: ``d64``, ``d128``."""
    parts = [re.fullmatch(r"(\D*?)(\d+\.?\d*(?:[eE][-+]\d+)?)(.*)", label) for label in labels]
    found = [part for part in parts if part]
    numbered = len(found) == len(labels) and len({part[1] for part in found}) == 1
    units = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "m": 1e6, "B": 1e9, "b": 1e9}
    if not numbered or (len({part[3] for part in found}) > 1 and any(part[3] not in units for part in found)):
        return tuple(Arm(label=label, size=math.nan) for label in labels)
    arms = [Arm(label=part[0], size=float(part[2]) * units.get(part[3], 1.0)) for part in found]
    return tuple(sorted(arms, key=lambda arm: arm.size))
