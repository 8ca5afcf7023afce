"""Held-out loss against learning rate: every (LR, seed) of a cell trained to the end in one stack."""

from mue_check.data import Corpus
from mue_check.measure.stacking import stack_of
from mue_check.records import Cell, Columns


def measure_loss_grid(cell: Cell, corpus: Corpus) -> Columns:
    """Columns seed, lr, initial, loss: held-out cross-entropy before and after training, nats per token."""
    stack, lrs, seeds = stack_of(cell, corpus)
    initial = stack.evaluate().tolist()
    stack.advance(cell.train.steps)
    return {"seed": seeds, "lr": lrs, "initial": initial, "loss": stack.evaluate().tolist()}
