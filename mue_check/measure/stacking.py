"""The runs of a cell: its learning rates crossed with its seeds, as one stack."""

import torch

from mue_check.data import Corpus
from mue_check.records import Cell
from mue_check.training import Stack


def stack_of(cell: Cell, corpus: Corpus) -> tuple[Stack, list[float], list[int]]:
    """The stack of a cell with the learning rate and the seed of each run."""
    pairs = [(lr, seed) for seed in cell.seeds for lr in cell.lrs]
    lrs, seeds = [lr for lr, _ in pairs], [seed for _, seed in pairs]
    stack = Stack(
        cell.model,
        cell.prescription,
        cell.base,
        cell.train,
        corpus,
        lrs=lrs,
        seeds=seeds,
        device=torch.device(cell.device),
    )
    return stack, lrs, seeds
