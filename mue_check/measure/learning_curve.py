"""Held-out loss along a training: how many steps each model needs for a loss."""

from mue_check.data import Corpus
from mue_check.measure.stacking import stack_of
from mue_check.records import Cell, Columns


def measure_learning_curve(cell: Cell, corpus: Corpus) -> Columns:
    """Columns seed, value, step, loss: held-out cross-entropy after each of ``cell.steps``, in nats per token."""
    stack, values, seeds = stack_of(cell, corpus)
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
