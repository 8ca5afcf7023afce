"""Find an arm's optimum with few runs: a coarse pass (or a start at another arm's optimum), a fine one, and a look
around for a deeper minimum.

All learning rates lie on one grid, so passes share points. Every choice follows from stored losses alone, so the same
question always needs the same cells.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mue_check.judge.interval import Looks
from mue_check.judge.optimum import WINDOW, Curve, lacking, mean_minimum
from mue_check.records import AnyCell, Store
from mue_check.rules import Knob
from mue_check.rules.knob import group_of, quantity_of
from mue_check.study.arm import AnyArm

FAR = 3
"""Coarse steps on each side of a minimum, two grid points each, in which one replicate looks for a deeper one."""
MAX_EXTENSIONS = 4


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The values of a fine pass: ``reach`` on each side of its center, ``step`` octaves apart (docs/choices.md)."""

    step: float
    reach: int
    is_fixed: bool = False
    """Whether it is wide enough to need no search: it lies around the base value."""

    def around(self, center: float) -> list[float]:
        """log2 of the values of a fine pass."""
        return [self.nearest(center) + self.step * i for i in range(-self.reach, self.reach + 1)]

    def nearest(self, x: float) -> float:
        """The point of the grid that is nearest to ``x``, in log2."""
        return round(x / self.step) * self.step


GROUP = Grid(step=1.5, reach=3, is_fixed=True)
"""Of the learning rate, decay or multiplier of one group: its valley is wide, and both of its walls place the curve."""


def grid_of(knob: Knob, step: float, reach: int | None = None) -> Grid:
    """The grid on which a knob is searched; ``step`` and ``reach`` are those of a global knob (``tiers.Task``)."""
    # the valley of a group's init std is as narrow as that of a global knob (docs/choices.md)
    is_wide = group_of(knob) and quantity_of(knob) != "init_std"
    if is_wide:
        return GROUP
    return Grid(step=step, reach=WINDOW // 2) if reach is None else Grid(step=step, reach=reach, is_fixed=True)


class LossSearch:
    """The growing set of loss-grid cells of one arm, and the curve in them."""

    def __init__(self, arm: AnyArm, store: Store, grid: Grid) -> None:
        self.arm, self.store, self.grid = arm, store, grid
        self._cells: dict[str, AnyCell] = {}
        self._measured: dict[int, set[float]] = {}

    @property
    def cells(self) -> list[str]:
        """Keys of the cells used so far, in the order of their use."""
        return list(self._cells)

    def curve(self) -> Curve:
        """The curve over the learning rates that every replicate so far has."""
        return read_curve(self.store, self._cells, first_seed=self.arm.first_seed)

    def locate(self, center: float) -> float:
        """log2 of the best learning rate of a coarse pass: one replicate, every second point around ``center``.

        Where the minimum is at an end, the pass goes on there, at most MAX_EXTENSIONS times.
        """
        middle, step = self.grid.nearest(center), self.grid.step
        self._run([middle + 2 * step * i for i in range(-self.grid.reach, self.grid.reach + 1)], replicates=[0])
        for _ in range(MAX_EXTENSIONS):
            x, best = self._best()
            if 0 < best < len(x) - 1:
                break
            end = x[-1] + 2 * step if best > 0 else x[0] - 4 * step
            self._run([end, end + 2 * step], replicates=[0])
        x, best = self._best()
        return x[best]

    def follow(self, center: float) -> float:
        """log2 of the best learning rate of one replicate: a fine pass from ``center``, and a coarse one around it.

        Where the coarse pass finds a lower loss, the search goes on there, at most MAX_EXTENSIONS times.
        """
        step, reach = self.grid.step, self.grid.reach
        for _ in range(MAX_EXTENSIONS):
            self.refine(center, 1)
            x, best = self._best()
            near = x[best]
            around = [near + 2 * step * i for i in range(-FAR, FAR + 1)]
            self._run([value for value in around if min(abs(value - known) for known in x) > step], replicates=[0])
            x, best = self._best()
            center = x[best]
            if abs(center - near) <= reach * step:
                break
        return center

    def refine(self, center: float, replicates: int) -> Curve:
        """The curve of ``replicates`` seeds around ``center``, extended until the fit's window is centred."""
        wanted = self.grid.around(center)
        # learning rates that an earlier, smaller set of replicates was extended to
        wanted += [x for x in self._shared() if x not in wanted]
        self._run(sorted(wanted), range(replicates))
        for _ in range(MAX_EXTENSIONS):
            curve = self.curve()
            below, above = lacking(curve)
            if not below and not above:
                break
            low = [curve.x[0] - self.grid.step * (i + 1) for i in range(below)]
            high = [curve.x[-1] + self.grid.step * (i + 1) for i in range(above)]
            self._run(sorted(low + high), range(replicates))
        return self.curve()

    def _best(self) -> tuple[list[float], int]:
        """log2 of the shared learning rates, and the index of the best of them (0 when all diverged)."""
        curve = self.curve()
        return [float(x) for x in curve.x], max(0, mean_minimum(curve))

    def _shared(self) -> set[float]:
        """log2 learning rates that more than the locating replicate has."""
        others = [points for replicate, points in self._measured.items() if replicate > 0]
        return set.intersection(*others) if others else set()

    def _run(self, x: list[float], replicates: Iterable[int]) -> None:
        missing: dict[int, list[float]] = {}
        for replicate in replicates:
            done = self._measured.setdefault(replicate, set())
            if wanted := [value for value in x if value not in done]:
                missing[replicate] = wanted
                done.update(wanted)
        self._measure(missing)

    def _measure(self, missing: Mapping[int, Sequence[float]]) -> None:
        """Measure log2 learning rates of some replicates."""
        grids = [self.arm.cells("loss_grid", [2.0**v for v in x], [replicate]) for replicate, x in missing.items()]
        cells = [cell for grid in grids for cell in grid]
        self.arm.measure(cells, self.store)
        self._cells.update((cell.key, cell) for cell in cells)


def curves_by_look(searches: Sequence[LossSearch], start: float, looks: Looks) -> Iterator[list[Curve]]:
    """The curves of a reference and a target, with more and more seeds; the caller stops when it knows enough.

    The reference is looked for around ``start``, in log2, and the target where the reference's optimum is. A wide grid
    needs no search: both arms begin at the base value, so that their grids overlap.
    """
    if searches[0].grid.is_fixed:
        centers = [start, start]
    else:
        best = searches[0].follow(searches[0].locate(start))
        centers = [best, searches[1].follow(best)]
    for replicates in looks:
        yield [search.refine(center, replicates) for search, center in zip(searches, centers, strict=True)]


def read_curve(store: Store, cells: Iterable[str], *, first_seed: int = 0) -> Curve:
    """The curve in stored cells, by their keys."""
    return curve_of([store.rows(key) for key in cells], first_seed=first_seed)


def curve_of(tables: Sequence[pd.DataFrame], *, first_seed: int = 0) -> Curve:
    """The loss-vs-LR curve in loss_grid tables, with replicates in place of seeds.

    Values that some replicate lacks are left out: their mean would be over other seeds.
    """
    rows = pd.concat(tables, ignore_index=True).drop_duplicates(["seed", "value"])
    grid = rows.pivot(index="seed", columns="value", values="loss").sort_index()
    # a loss that is NaN because the run diverged is present; a pair that was never run is not
    present = rows.assign(one=1).pivot(index="seed", columns="value", values="one").notna().all(axis=0)
    grid = grid.loc[:, present]
    # one that is NaN must not be passed over for another
    initial = rows.groupby("seed")["initial"].agg(lambda losses: losses.min(skipna=False))
    return Curve(
        values=grid.columns.to_numpy(dtype=np.float64),
        seeds=tuple(int(seed) - first_seed for seed in grid.index),
        losses=grid.to_numpy(dtype=np.float64),
        initial=initial.to_numpy(dtype=np.float64),
    )
