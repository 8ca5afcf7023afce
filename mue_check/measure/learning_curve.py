"""Held-out loss during training: how many steps each model needs to reach a loss."""

from mue_check.data import Data
from mue_check.measure.measurement import Measurement, Passes
from mue_check.measure.stacks import stack_of
from mue_check.records import Cell, Columns


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


LEARNING_CURVE = Measurement(
    measure=measure_learning_curve,
    passes=lambda cell: Passes(steps=cell.steps[-1], evaluations=len(cell.steps)),
)
