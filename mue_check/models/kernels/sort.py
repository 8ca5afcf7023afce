"""Sort the assignments of tokens to experts on the device: a counting sort whose launches do not depend on sizes.

The order is stable and the same in every run.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK = 128
"""Assignments of one program, which compares each with each."""
LOOKED_UP = 64
"""Tiles, and experts at a time, of one program of the map."""


@dataclass(frozen=True)
class Sorted:
    """S = R*M*K assignments, sorted by run and expert, and cut into tiles that each belong to one expert.

    ``order_S``: which assignment is in each row; assignment (r*M + m)*K + k is token m's k-th expert.
    ``end_GC`` [R*E, chunks]: its last chunk is the row after the last of each group.
    ``tiles_3T``: expert, first row, and the row after the last of the group, for the tiles of all runs. Their number
    follows from shapes alone; tiles that are not needed have no rows.
    """

    order_S: Tensor
    end_GC: Tensor
    tiles_3T: Tensor


def sort_by_expert(indices_RMK: Tensor, total: int, tile: int) -> Sorted:
    """Sort, and cut into tiles of ``tile`` rows."""
    runs, tokens, active = indices_RMK.shape
    groups, device = runs * total, indices_RMK.device
    per_run = tokens * active
    chunks, tiles = triton.cdiv(per_run, CHUNK), tiles_of_run(tokens, active, total, tile)
    count_GC = torch.empty(groups, chunks, dtype=torch.int32, device=device)
    programs, sizes = (runs * chunks,), (per_run, total, chunks)
    _count[programs](indices_RMK, count_GC, *sizes, CHUNK=CHUNK, BINS=max(32, triton.next_power_of_2(total + 1)))
    end_GC = count_GC.flatten().cumsum(0, dtype=torch.int32).view_as(count_GC)
    order_S = torch.empty(runs * per_run, dtype=torch.int32, device=device)
    _place[programs](indices_RMK, end_GC, order_S, *sizes, CHUNK=CHUNK, num_warps=8)
    tiles_3T = torch.empty(3, runs * tiles, dtype=torch.int32, device=device)
    grid = (runs, triton.cdiv(tiles, LOOKED_UP))
    _tiles[grid](end_GC, tiles_3T, total, chunks, tiles, runs * tiles, TILE=tile, BLOCK=LOOKED_UP)
    return Sorted(order_S, end_GC, tiles_3T)


def tiles_of_run(tokens: int, active: int, total: int, tile: int) -> int:
    """Enough for any routing: each expert wastes less than one tile."""
    return tokens * active // tile + min(total, tokens * active)


@triton.jit
def _chunk(indices, per_run, total, chunks, CHUNK: tl.constexpr):
    """The run and the chunk of this program, its assignments, which of them exist, and their experts."""
    run, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    at = chunk * CHUNK + tl.arange(0, CHUNK)
    live = at < per_run
    return run, chunk, at, live, tl.load(indices + run * per_run + at, mask=live, other=total).to(tl.int32)


SHARED = ["per_run", "total", "chunks", "tiles", "all_tiles"]
"""Sizes for which no kernel is compiled anew: nothing would be gained."""


@triton.jit(do_not_specialize=SHARED)
def _count(indices, count_GC, per_run, total, chunks, CHUNK: tl.constexpr, BINS: tl.constexpr):
    """How many assignments of each chunk go to each expert."""
    run, chunk, _, _, expert = _chunk(indices, per_run, total, chunks, CHUNK)
    every = tl.arange(0, BINS)
    tl.store(count_GC + (run * total + every) * chunks + chunk, tl.histogram(expert, BINS), mask=every < total)


@triton.jit(do_not_specialize=SHARED)
def _place(indices, end_GC, order_S, per_run, total, chunks, CHUNK: tl.constexpr):
    """Write each assignment into its row, behind those of its chunk that go to the same expert before it."""
    run, chunk, at, live, expert = _chunk(indices, per_run, total, chunks, CHUNK)
    i = tl.arange(0, CHUNK)
    before = (expert[:, None] == expert[None, :]) & (i[None, :] < i[:, None])
    rank = tl.sum(before.to(tl.int32), 1)
    place = (run * total + expert) * chunks + chunk
    first = tl.load(end_GC + place - 1, mask=live & (place > 0), other=0)
    tl.store(order_S + first + rank, run * per_run + at, mask=live)


@triton.jit(do_not_specialize=SHARED)
def _tiles(end_GC, tiles_3T, total, chunks, tiles, all_tiles, TILE: tl.constexpr, BLOCK: tl.constexpr):
    """The map from tiles to groups: each program counts the tiles of all experts of its run."""
    run = tl.program_id(0)
    tile = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    of_expert = tl.zeros([BLOCK], tl.int32)
    of_first = tl.zeros([BLOCK], tl.int32)
    of_last = tl.zeros([BLOCK], tl.int32)
    before = tl.sum(tl.zeros([BLOCK], tl.int32), 0)
    for start in range(0, total, BLOCK):
        expert = start + tl.arange(0, BLOCK)
        group = run * total + expert
        known = expert < total
        end = tl.load(end_GC + group * chunks + chunks - 1, mask=known, other=0)
        begin = tl.load(end_GC + group * chunks - 1, mask=known & (group > 0), other=0)
        needed = tl.where(known, (end - begin + TILE - 1) // TILE, 0)
        last_tile = before + tl.cumsum(needed, 0)
        first_tile = last_tile - needed
        mine = (tile[:, None] >= first_tile[None, :]) & (tile[:, None] < last_tile[None, :])
        row = begin[None, :] + (tile[:, None] - first_tile[None, :]) * TILE
        of_expert += tl.sum(tl.where(mine, expert[None, :], 0), 1)
        of_first += tl.sum(tl.where(mine, row, 0), 1)
        of_last += tl.sum(tl.where(mine, end[None, :], 0), 1)
        before += tl.sum(needed, 0)
    place = tiles_3T + run * tiles + tile
    tl.store(place, of_expert, mask=tile < tiles)
    tl.store(place + all_tiles, of_first, mask=tile < tiles)
    tl.store(place + 2 * all_tiles, of_last, mask=tile < tiles)
