"""Held-out loss against the swept value: every (value, seed) of a cell trained to the end in one stack."""

from mue_check.data import Data
from mue_check.measure.measurement import Measurement, Passes
from mue_check.measure.stacks import stack_of
from mue_check.records import Cell, Columns


def measure_loss_grid(cell: Cell, data: Data) -> Columns:
    """Columns seed, value, initial, loss.

    ``initial`` is the loss of the first batch, before any update; ``loss`` that of the held-out part at the end.
    """
    stack, values, seeds = stack_of(cell, data)
    stack.advance(cell.train.steps)
    return {"seed": seeds, "value": values, "initial": stack.log[0].tolist(), "loss": stack.evaluate().tolist()}


LOSS_GRID = Measurement(measure=measure_loss_grid, passes=lambda cell: Passes(steps=cell.train.steps, evaluations=1))
