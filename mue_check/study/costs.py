"""What a study cost: core-seconds of its cells, each counted once in every sum."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mue_check.records import Store
from mue_check.study.comparison import Comparison, Side


def keys_of(comparisons: Iterable[Comparison]) -> frozenset[str]:
    """The cells of these comparisons."""
    return frozenset(key for c in comparisons for side in c.sides for key in side.cells)


class RungCost(NamedTuple):
    """Core-seconds of one rung, with the first comparison that has it."""

    comparison: Comparison
    side: Side
    core_seconds: float


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Core-seconds by the key of a cell. Axes and rungs share cells, so their sums exceed ``total``."""

    seconds: Mapping[str, float]

    @classmethod
    def read(cls, store: Store, comparisons: Sequence[Comparison]) -> "Costs":
        """Read what was stored with the cells of these comparisons."""
        return cls(seconds={key: store.cost(key) for key in keys_of(comparisons)})

    def of(self, cells: Iterable[str]) -> float:
        """Core-seconds of the cells, added in a fixed order so that the sum is the same to the last bit."""
        return sum(self.seconds[key] for key in sorted(set(cells)))

    @property
    def total(self) -> float:
        """Core-seconds of all cells."""
        return self.of(self.seconds)

    def by_axis(self, comparisons: Sequence[Comparison]) -> dict[str, float]:
        """Core-seconds of each axis, in the order of the comparisons."""
        cells: dict[str, set[str]] = {}
        for c in comparisons:
            cells.setdefault(c.axis, set()).update(*(side.cells for side in c.sides))
        return {axis: self.of(keys) for axis, keys in cells.items()}

    def by_rung(self, comparisons: Sequence[Comparison]) -> list[RungCost]:
        """Core-seconds of each rung."""
        rungs: dict[tuple[str, ...], tuple[Comparison, Side, set[str]]] = {}
        for c in comparisons:
            for side in c.sides:
                key = (c.axis, c.ladder, c.corpus, c.rule, c.router, side.label, side.model)
                rungs.setdefault(key, (c, side, set()))[2].update(side.cells)
        return [RungCost(c, side, self.of(keys)) for c, side, keys in rungs.values()]
