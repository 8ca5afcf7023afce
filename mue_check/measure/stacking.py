"""The runs of a cell: its swept values crossed with its seeds, as one stack."""

import gc
from typing import TypedDict

import torch

from mue_check.data import Corpus
from mue_check.records import Cell
from mue_check.training import Stack
from mue_check.training.flaws import FLAWS

KEPT = 4
"""Captured stacks that are kept for cells of the same shape: a search asks for several of two arms in turn."""

_captured: dict[tuple[str, int], Stack] = {}


def stack_of(cell: Cell, corpus: Corpus) -> tuple[Stack, list[float], list[int]]:
    """The stack of a cell with the swept value and the seed of each run.

    On a GPU a stack of the same shape that was captured before takes the new runs over: each shape is captured once.
    """
    values, seeds = _runs(cell)
    shape = (cell.shape, cell.runs)
    if kept := _captured.get(shape):
        return kept.restart(**_settings(cell)), values, seeds
    while len(_captured) >= KEPT:
        _captured.pop(next(iter(_captured)))
    stack = new_stack(cell, corpus)
    # a user's module may keep more than its tensors
    if cell.device != "cpu" and stack.model.router is None:
        _captured[shape] = stack
    return stack, values, seeds


def new_stack(cell: Cell, corpus: Corpus) -> Stack:
    """The same in memory of its own."""
    return Stack(
        cell.model,
        cell.prescription,
        cell.base,
        cell.train,
        corpus,
        device=torch.device(cell.device),
        optimizer=FLAWS[cell.flaw],
        load_scaling=cell.load_scaling,
        precision=cell.precision,
        **_settings(cell),
    )


def is_kept(cell: Cell) -> bool:
    """Whether a captured stack waits for this cell, so that it needs no new memory."""
    return (cell.shape, cell.runs) in _captured


def forget_stacks() -> None:
    """Give the memory of captured stacks back, and what else nobody holds."""
    _captured.clear()
    gc.collect()
    torch.cuda.empty_cache()


class _Settings(TypedDict):
    lrs: list[float]
    seeds: list[int]
    weight_decays: list[float] | None
    init_stds: list[float] | None


def _settings(cell: Cell) -> _Settings:
    """Seed and base values of each run."""
    values, seeds = _runs(cell)
    return {
        "lrs": values if cell.knob == "lr" else [cell.base.lr] * len(seeds),
        "seeds": seeds,
        "weight_decays": values if cell.knob == "weight_decay" else None,
        "init_stds": values if cell.knob == "init_std" else None,
    }


def _runs(cell: Cell) -> tuple[list[float], list[int]]:
    pairs = [(value, seed) for seed in cell.seeds for value in cell.values]
    return [value for value, _ in pairs], [seed for _, seed in pairs]
