"""How a trained model routes: the load of each expert, and how unequal the active weights of a token are."""

from collections.abc import Iterator

from mue_check.data import Data
from mue_check.measure.measurement import Measurement, Passes, Row, by_columns
from mue_check.measure.stacks import stack_of
from mue_check.records import Cell, Columns


def measure_routing(cell: Cell, data: Data) -> Columns:
    """Columns seed, value, layer, expert, load, weight_sum, weight_sum_low, weight_sum_high, variance_factor, on the
    held-out part after training.

    ``load`` is the share of all assignments. The rest is equal for all experts of a layer: ``weight_sum`` and
    ``variance_factor`` are means over tokens, ``weight_sum_low`` and ``weight_sum_high`` the extremes.
    """
    return by_columns(_rows(cell, data))


def _rows(cell: Cell, data: Data) -> Iterator[Row]:
    stack, values, seeds = stack_of(cell, data)
    stack.advance(cell.train.steps)
    for layer, statistics in enumerate(stack.routing(stack.examples.observed())):
        load_RE = statistics.load_RE.tolist()
        shared = {
            "weight_sum": statistics.weight_sum_R.tolist(),
            "weight_sum_low": statistics.weight_sum_low_R.tolist(),
            "weight_sum_high": statistics.weight_sum_high_R.tolist(),
            "variance_factor": statistics.variance_factor_R.tolist(),
        }
        for run, (seed, value) in enumerate(zip(seeds, values, strict=True)):
            for expert, load in enumerate(load_RE[run]):
                row: Row = {"seed": seed, "value": value, "layer": layer, "expert": expert, "load": load}
                yield {**row, **{name: values[run] for name, values in shared.items()}}


ROUTING = Measurement(measure=measure_routing, passes=lambda cell: Passes(steps=cell.train.steps, evaluations=1))
