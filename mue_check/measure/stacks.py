"""The runs of a cell, its swept values crossed with its seeds, as one stack; and the stacks that a process keeps."""

import gc
from collections.abc import Mapping
from functools import cache
from typing import TypedDict

import torch

from mue_check.data import Data
from mue_check.records import Cell
from mue_check.rules import Factors, Role, knob_factors
from mue_check.rules.knob import group_of
from mue_check.training import Stack
from mue_check.training.flaws import FLAWS

KEPT = 2
"""Captured stacks that are kept for cells of the same shape: a search alternates between two arms."""


class _Runs(TypedDict):
    lrs: list[float]
    seeds: list[int]
    weight_decays: list[float] | None
    init_stds: list[float] | None
    role_factors: list[Mapping[Role, Factors]] | None


class Stacks:
    """What a process keeps of its GPU: captured stacks, and ``run_bytes``, the memory of a run by a cell's shape."""

    def __init__(self) -> None:
        self.run_bytes: dict[str, int] = {}
        self._kept: dict[tuple[str, int], Stack] = {}

    def get(self, cell: Cell, data: Data) -> Stack:
        """The stack of a cell. On a GPU, one that was captured for the same shape restarts with the cell's runs."""
        shape = (cell.shape, cell.runs)
        if kept := self._kept.get(shape):
            return kept.restart(**_runs(cell))
        while len(self._kept) >= KEPT:
            self._kept.pop(next(iter(self._kept)))
        stack = new_stack(cell, data)
        # a user's module may keep state outside its tensors
        if cell.device != "cpu" and not (stack.routers and stack.routers.user):
            self._kept[shape] = stack
        return stack

    def holds(self, cell: Cell) -> bool:
        """Whether the stack of this cell is here, so that it needs no new memory."""
        return (cell.shape, cell.runs) in self._kept

    def forget(self) -> None:
        """Free the memory of all stacks, and all other unused memory."""
        self._kept.clear()
        gc.collect()
        torch.cuda.empty_cache()


@cache
def stacks() -> Stacks:
    """Those of this process."""
    return Stacks()


def stack_of(cell: Cell, data: Data) -> tuple[Stack, list[float], list[int]]:
    """The stack of a cell, with the swept value and the seed of each run."""
    pairs = _pairs(cell)
    return stacks().get(cell, data), [value for value, _ in pairs], [seed for _, seed in pairs]


def new_stack(cell: Cell, data: Data) -> Stack:
    """A new stack for a cell."""
    return Stack(
        cell.model,
        cell.prescription,
        cell.base,
        cell.train,
        data,
        device=torch.device(cell.device),
        optimizer=FLAWS[cell.flaw],
        load_scaling=cell.load_scaling,
        precision=cell.precision,
        **_runs(cell),
    )


def _runs(cell: Cell) -> _Runs:
    pairs = _pairs(cell)
    values = [value for value, _ in pairs]
    return {
        "lrs": values if cell.knob == "lr" else [cell.base.lr] * len(pairs),
        "seeds": [seed for _, seed in pairs],
        "weight_decays": values if cell.knob == "weight_decay" else None,
        "init_stds": values if cell.knob == "init_std" else None,
        "role_factors": [knob_factors(cell.knob, v, cell.base) for v in values] if group_of(cell.knob) else None,
    }


def _pairs(cell: Cell) -> list[tuple[float, int]]:
    return [(value, seed) for seed in cell.seeds for value in cell.values]
