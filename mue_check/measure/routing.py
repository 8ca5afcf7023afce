"""How a trained model routes: the load of each expert, and how unequal the active weights of a token are."""

from collections.abc import Iterator

from mue_check.data import Data
from mue_check.measure.measurement import Measurement, Passes, Row, by_columns
from mue_check.measure.stacks import stack_of
from mue_check.records import Cell, Columns


def measure_routing(cell: Cell, data: Data) -> Columns:
    """Columns seed, value, layer, expert, load, weight_sum, variance_factor, on the held-out part after training.

    ``load`` is the share of all assignments; ``weight_sum`` and ``variance_factor`` are means over tokens, equal for
    all experts of a layer.
    """
    return by_columns(_rows(cell, data))


def _rows(cell: Cell, data: Data) -> Iterator[Row]:
    stack, values, seeds = stack_of(cell, data)
    stack.advance(cell.train.steps)
    for layer, statistics in enumerate(stack.routing(stack.examples.observed())):
        load_RE = statistics.load_RE.tolist()
        sums, factors = statistics.weight_sum_R.tolist(), statistics.variance_factor_R.tolist()
        for run, (seed, value) in enumerate(zip(seeds, values, strict=True)):
            for expert, load in enumerate(load_RE[run]):
                row: Row = {"seed": seed, "value": value, "layer": layer, "expert": expert, "load": load}
                yield {**row, "weight_sum": sums[run], "variance_factor": factors[run]}


ROUTING = Measurement(measure=measure_routing, passes=lambda cell: Passes(steps=cell.train.steps, evaluations=1))
