"""The runs of a cell: its swept values crossed with its seeds, as one stack."""

import torch

from mue_check.data import Corpus
from mue_check.records import Cell
from mue_check.training import Stack
from mue_check.training.flaws import FLAWS


def stack_of(cell: Cell, corpus: Corpus) -> tuple[Stack, list[float], list[int]]:
    """The stack of a cell with the swept value and the seed of each run."""
    pairs = [(value, seed) for seed in cell.seeds for value in cell.values]
    values, seeds = [value for value, _ in pairs], [seed for _, seed in pairs]
    stack = Stack(
        cell.model,
        cell.prescription,
        cell.base,
        cell.train,
        corpus,
        lrs=values if cell.knob == "lr" else [cell.base.lr] * len(pairs),
        weight_decays=values if cell.knob == "weight_decay" else None,
        init_stds=values if cell.knob == "init_std" else None,
        seeds=seeds,
        device=torch.device(cell.device),
        optimizer=FLAWS[cell.flaw],
        load_scaling=cell.load_scaling,
    )
    return stack, values, seeds
