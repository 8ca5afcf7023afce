"""Find an arm's optimum with few runs: a coarse pass (or another arm's optimum to begin at), then a fine one.

All learning rates lie on one half-octave grid, so passes share points. Every choice follows from
stored losses alone: the same question asks for the same cells, whoever asks and however often.
"""

from collections.abc import Iterable

from mue_check.execute import ensure
from mue_check.judge.optimum import Curve, lacking, mean_minimum
from mue_check.records import Cell, Store
from mue_check.study.arm import Arm
from mue_check.study.reading import read_curve

FINE_STEP = 0.5
FINE_REACH = 1.5
COARSE_REACH = 3.0
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
        """log2 of the best learning rate of a coarse pass: one replicate, one octave apart around ``center``.

        Where the minimum is at an end the pass goes on there, MAX_EXTENSIONS times at most.
        """
        middle = float(round(center))
        reach = int(COARSE_REACH)
        self._run([middle + step for step in range(-reach, reach)], replicates=[0])
        for _ in range(MAX_EXTENSIONS):
            curve = self.curve()
            best = mean_minimum(curve)
            if 0 < best < len(curve.lrs) - 1:
                break
            end = curve.x[-1] + 1 if best > 0 else curve.x[0] - 2
            self._run([end, end + 1], replicates=[0])
        curve = self.curve()
        return float(curve.x[max(0, mean_minimum(curve))])

    def follow(self, center: float) -> float:
        """log2 of the best learning rate of one replicate's fine pass, begun at ``center``: another arm's optimum."""
        curve = self.refine(round(center / FINE_STEP) * FINE_STEP, 1)
        return float(curve.x[max(0, mean_minimum(curve))])

    def refine(self, center: float, replicates: int) -> Curve:
        """The curve of ``replicates`` seeds at half-octave steps around ``center``, extended until it is centred."""
        reach = round(FINE_REACH / FINE_STEP)
        wanted = [center + step * FINE_STEP for step in range(-reach, reach + 1)]
        # learning rates that an earlier, smaller set of replicates was extended to
        wanted += [x for x in self._shared() if x not in wanted]
        self._run(sorted(wanted), range(replicates))
        for _ in range(MAX_EXTENSIONS):
            curve = self.curve()
            below, above = lacking(curve)
            if not below and not above:
                break
            low = [curve.x[0] - FINE_STEP * (i + 1) for i in range(below)]
            high = [curve.x[-1] + FINE_STEP * (i + 1) for i in range(above)]
            self._run(sorted(low + high), range(replicates))
        return self.curve()

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
