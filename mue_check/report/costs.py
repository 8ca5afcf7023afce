"""Core-seconds of a study: by axis, by rung and in all, each cell once in whatever is summed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mue_check.questions.comparison import Comparison, Side
from mue_check.records import Store


@dataclass(frozen=True, kw_only=True)
class AxisCost:
    """Core-seconds of all cells that one axis' questions are answered from, each once."""

    axis: str
    core_seconds: float


@dataclass(frozen=True, kw_only=True)
class RungCost:
    """The same of one rung. ``comparison`` is the first that asks of it."""

    comparison: Comparison
    side: Side
    core_seconds: float


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Axes and rungs share cells, so that neither sums to ``core_seconds``."""

    axes: tuple[AxisCost, ...]
    rungs: tuple[RungCost, ...]
    core_seconds: float


def costs_of(store: Store, comparisons: Sequence[Comparison]) -> Costs:
    """From what was written down beside the cells; in the order of the comparisons."""
    axes: dict[str, set[str]] = {}
    rungs: dict[tuple[str, ...], tuple[Comparison, Side, set[str]]] = {}
    for c in comparisons:
        for side in c.sides:
            axes.setdefault(c.axis, set()).update(side.cells)
            key = (c.axis, c.ladder, c.corpus, c.rule, c.router, side.label, side.model)
            rungs.setdefault(key, (c, side, set()))[2].update(side.cells)
    return Costs(
        axes=tuple(AxisCost(axis=axis, core_seconds=cost_of(store, keys)) for axis, keys in axes.items()),
        rungs=tuple(
            RungCost(comparison=c, side=side, core_seconds=cost_of(store, keys)) for c, side, keys in rungs.values()
        ),
        core_seconds=cost_of(store, set().union(*axes.values())),
    )


def cost_of(store: Store, keys: Iterable[str]) -> float:
    """Core-seconds of the cells, each once; in a fixed order, so that the sum is the same to the last bit."""
    return sum(store.cost(key) for key in sorted(set(keys)))
