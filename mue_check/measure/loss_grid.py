"""Held-out loss against the swept value: every (value, seed) of a cell trained to the end in one stack."""

from mue_check.data import Corpus
from mue_check.measure.stacking import stack_of
from mue_check.records import Cell, Columns


def measure_loss_grid(cell: Cell, corpus: Corpus) -> Columns:
    """Columns seed, value, initial, loss, in nats per token.

    ``initial`` is the first batch's cross-entropy, before any update; ``loss`` the held-out part's at the end.
    """
    stack, values, seeds = stack_of(cell, corpus)
    stack.advance(cell.train.steps)
    return {"seed": seeds, "value": values, "initial": stack.log[0].tolist(), "loss": stack.evaluate().tolist()}
