"""The logged losses of the first steps: the cheapest way to compare how two arms learn."""

from mue_check.data import Data
from mue_check.measure.measurement import Measurement, Passes
from mue_check.measure.stacks import stack_of
from mue_check.records import Cell, Columns


def measure_early_curve(cell: Cell, data: Data) -> Columns:
    """Columns seed, value, step, loss: training loss of each of the first ``cell.steps[-1]`` steps."""
    stack, values, seeds = stack_of(cell, data)
    steps = cell.steps[-1]
    stack.advance(steps)
    log = stack.log[:steps].T.tolist()
    return {
        "seed": [seed for seed in seeds for _ in range(steps)],
        "value": [value for value in values for _ in range(steps)],
        "step": [step for _ in seeds for step in range(steps)],
        "loss": [loss for row in log for loss in row],
    }


EARLY_CURVE = Measurement(measure=measure_early_curve, passes=lambda cell: Passes(steps=cell.steps[-1]))
