"""The first steps of training, as they were logged: the cheapest look at whether two arms learn alike."""

from mue_check.data import Corpus
from mue_check.measure.stacking import stack_of
from mue_check.records import Cell, Columns


def measure_early_curve(cell: Cell, corpus: Corpus) -> Columns:
    """Columns seed, value, step, loss: training loss of each of the first ``cell.steps[-1]`` steps."""
    stack, values, seeds = stack_of(cell, corpus)
    steps = cell.steps[-1]
    stack.advance(steps)
    log = stack.log[:steps].T.tolist()
    return {
        "seed": [seed for seed in seeds for _ in range(steps)],
        "value": [value for value in values for _ in range(steps)],
        "step": [step for _ in seeds for step in range(steps)],
        "loss": [loss for row in log for loss in row],
    }
