"""How many runs train together: as many as fit a CPU's cache or a GPU's memory."""

from dataclasses import replace

import torch

from mue_check.data import load_data
from mue_check.measure.stacks import new_stack, stacks
from mue_check.records import Cell
from mue_check.training import training_step

NUMBERS = 2**17
"""The largest activation [R, M, D] of a stack on a CPU: a larger one does not fit the cache (reports/bench)."""
MARGIN = 0.8
"""Share of a GPU's free memory to plan for: captured graphs, probes and evaluation need the rest."""
ELSEWHERE = 64
"""Runs of a stack in a plan for a GPU that this machine does not have."""
DEFAULT_POOL = (0, 0)
"""The ``segment_pool_id`` of memory that any tensor may use (torch.cuda.memory_snapshot)."""


def runs_of_a_stack(cell: Cell) -> int:
    """How many runs of this cell's shape should train together; at least one."""
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
        for segment in torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
        if segment["device"] == torch.cuda.current_device() and tuple(segment["segment_pool_id"]) == DEFAULT_POOL
    )
    return free + unused


def bytes_of_a_run(cell: Cell) -> int:
    """Peak memory of one run during a step on the GPU, measured once per shape with a stack of one run."""
    known = stacks().run_bytes
    if cell.shape not in known:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        one = replace(cell, values=cell.values[:1], seeds=cell.seeds[:1])
        training_step(new_stack(one, load_data(one.corpus)))
        known[cell.shape] = torch.cuda.max_memory_allocated() - before
    return known[cell.shape]
