"""Losses: at the end of training, in its first steps, and on the way."""

from mue_check.data import Data
from mue_check.measure.measurement import Measurement, Passes
from mue_check.measure.stacks import stack_of
from mue_check.records import Cell, Columns


def measure_loss_grid(cell: Cell, data: Data) -> Columns:
    """Columns seed, value, initial, loss: every (value, seed) of a cell trained to the end in one stack.

    ``initial`` is the loss of the first batch, before any update; ``loss`` that of the held-out part at the end.
    """
    stack, values, seeds = stack_of(cell, data)
    stack.advance(cell.train.steps)
    return {"seed": seeds, "value": values, "initial": stack.log[0].tolist(), "loss": stack.evaluate().tolist()}


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


def measure_learning_curve(cell: Cell, data: Data) -> Columns:
    """Columns seed, value, step, loss: loss on the held-out part after each of ``cell.steps``."""
    stack, values, seeds = stack_of(cell, data)
    losses: list[list[float]] = []
    done = 0
    for step in cell.steps:
        stack.advance(step - done)
        done = step
        losses.append(stack.evaluate().tolist())
    return {
        "seed": [seed for _ in cell.steps for seed in seeds],
        "value": [value for _ in cell.steps for value in values],
        "step": [step for step in cell.steps for _ in seeds],
        "loss": [loss for row in losses for loss in row],
    }


LOSS_GRID = Measurement(measure=measure_loss_grid, passes=lambda cell: Passes(steps=cell.train.steps, evaluations=1))
EARLY_CURVE = Measurement(measure=measure_early_curve, passes=lambda cell: Passes(steps=cell.steps[-1]))
LEARNING_CURVE = Measurement(
    measure=measure_learning_curve, passes=lambda cell: Passes(steps=cell.steps[-1], evaluations=len(cell.steps))
)
