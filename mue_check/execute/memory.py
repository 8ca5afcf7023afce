"""How many runs are trained together: what a CPU's cache or a GPU's memory holds."""

from dataclasses import replace

import torch

from mue_check.data import load_corpus
from mue_check.measure.stacking import new_stack
from mue_check.records import Cell
from mue_check.training import training_step

NUMBERS = 2**17
"""Numbers of one activation, [R, M, D], of a stack on a CPU: beyond that it leaves the cache (reports/bench)."""
MARGIN = 0.8
"""Of a GPU's free memory: captured graphs, probes and evaluation take the rest."""
ELSEWHERE = 64
"""Runs of a stack in a plan for a GPU that is not here."""
DEFAULT_POOL = (0, 0)
"""The ``segment_pool_id`` of memory that any tensor may use (torch.cuda.memory_snapshot)."""

_BYTES: dict[str, int] = {}


def runs_of_a_stack(cell: Cell) -> int:
    """How many runs like this cell's are best trained together; at least one."""
    if cell.device == "cpu":
        return max(1, NUMBERS // (cell.train.tokens_per_step * cell.model.width))
    if not torch.cuda.is_available():
        return ELSEWHERE
    return max(1, int(MARGIN * free_bytes() / bytes_of_a_run(cell)))


def free_bytes() -> int:
    """What this process could still take of the current GPU.

    The unused parts of captured graphs' memory pools do not count: only their own graphs can use them.
    """
    free, _ = torch.cuda.mem_get_info()
    unused = sum(
        segment["total_size"] - segment["allocated_size"]
        for segment in torch.cuda.memory_snapshot()
        if segment["device"] == torch.cuda.current_device() and tuple(segment["segment_pool_id"]) == DEFAULT_POOL
    )
    return free + unused


def bytes_of_a_run(cell: Cell) -> int:
    """The most that one run holds on the GPU during a step: measured once per shape, on a stack of one."""
    if cell.shape not in _BYTES:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        one = replace(cell, values=cell.values[:1], seeds=cell.seeds[:1])
        training_step(new_stack(one, load_corpus(one.corpus)))
        _BYTES[cell.shape] = torch.cuda.max_memory_allocated() - before
    return _BYTES[cell.shape]
