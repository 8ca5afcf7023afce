"""Find an arm's optimum with few runs: a coarse pass (or another arm's optimum to begin at), then a fine one.

All learning rates lie on one grid, so passes share points. Every choice follows from
stored losses alone: the same question asks for the same cells, whoever asks and however often.
"""

from collections.abc import Iterable

from mue_check.execute import ensure
from mue_check.judge.optimum import WINDOW, Curve, lacking, mean_minimum
from mue_check.questions.arm import Arm
from mue_check.questions.stored import read_curve
from mue_check.records import Cell, Store

STEP = 0.75
"""Octaves between learning rates: five points then span three octaves, as seven at half octaves do, and place
the optimum nearly as well for less (docs/choices.md)."""
REACH = WINDOW // 2
MAX_EXTENSIONS = 4


class LossSearch:
    """The growing set of loss-grid cells of one arm, and the curve in them."""

    def __init__(self, arm: Arm, store: Store) -> None:
        self.arm, self.store = arm, store
        self._cells: dict[str, Cell] = {}
        self._measured: dict[int, set[float]] = {}

    @property
    def cells(self) -> list[str]:
        """Keys of the cells used so far, in the order in which they were asked for."""
        return list(self._cells)

    def curve(self) -> Curve:
        """The curve over the learning rates that every replicate so far has."""
        return read_curve(self.store, self._cells, first_seed=self.arm.first_seed)

    def locate(self, center: float) -> float:
        """log2 of the best learning rate of a coarse pass: one replicate, every second point around ``center``.

        Where the minimum is at an end the pass goes on there, MAX_EXTENSIONS times at most.
        """
        middle = _on_grid(center)
        self._run([middle + 2 * STEP * i for i in range(-REACH, REACH + 1)], replicates=[0])
        for _ in range(MAX_EXTENSIONS):
            x, best = self._best()
            if 0 < best < len(x) - 1:
                break
            end = x[-1] + 2 * STEP if best > 0 else x[0] - 4 * STEP
            self._run([end, end + 2 * STEP], replicates=[0])
        x, best = self._best()
        return x[best]

    def follow(self, center: float) -> float:
        """log2 of the best learning rate of one replicate's fine pass, begun at ``center``."""
        self.refine(center, 1)
        x, best = self._best()
        return x[best]

    def refine(self, center: float, replicates: int) -> Curve:
        """The curve of ``replicates`` seeds around ``center``, extended until the fit's window is centred."""
        wanted = [_on_grid(center) + STEP * i for i in range(-REACH, REACH + 1)]
        # learning rates that an earlier, smaller set of replicates was extended to
        wanted += [x for x in self._shared() if x not in wanted]
        self._run(sorted(wanted), range(replicates))
        for _ in range(MAX_EXTENSIONS):
            curve = self.curve()
            below, above = lacking(curve)
            if not below and not above:
                break
            low = [curve.x[0] - STEP * (i + 1) for i in range(below)]
            high = [curve.x[-1] + STEP * (i + 1) for i in range(above)]
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
        cells = []
        for replicate in replicates:
            done = self._measured.setdefault(replicate, set())
            if missing := [value for value in x if value not in done]:
                cells.append(self.arm.cell("loss_grid", [2.0**value for value in missing], [replicate]))
                done.update(missing)
        ensure(cells, self.store)
        self._cells.update((cell.key, cell) for cell in cells)


def _on_grid(x: float) -> float:
    return round(x / STEP) * STEP
