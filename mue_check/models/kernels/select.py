"""Choose each token's experts by sigmoid score: scores, bias and the best K in one pass over the logits."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
"""Scores of one program."""


def top_sigmoid(
    logits_RME: Tensor, bias_RE: Tensor | None, active: int, groups: int, normal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores and indices of the best ``active`` / ``groups`` of each group, best first, both [R, M, K]; and sums.

    ``normal``: each group's scores over their sum [R, M, G]; the sums are 1 otherwise.
    """
    runs, tokens, total = logits_RME.shape
    weights = logits_RME.new_empty(runs, tokens, active)
    indices = torch.empty(runs, tokens, active, dtype=torch.int64, device=logits_RME.device)
    sums = logits_RME.new_empty(runs, tokens, groups)
    rows, width = runs * tokens * groups, total // groups
    sizes = _sizes(width, active // groups)
    _select[(triton.cdiv(rows, sizes["ROWS"]),)](
        logits_RME, logits_RME if bias_RE is None else bias_RE, weights, indices, sums,
        rows, tokens * groups, groups, width, active // groups, BIASED=bias_RE is not None, NORMAL=normal, **sizes,
    )  # fmt: skip
    return weights, indices, sums


def top_sigmoid_backward(
    gradient: Tensor, weights: Tensor, indices: Tensor, sums: Tensor, total: int, normal: bool
) -> Tensor:
    """[R, M, E]: the gradient of the logits, 0 where an expert was not chosen."""
    runs, tokens, active = weights.shape
    groups = sums.shape[2]
    of_logits = weights.new_empty(runs, tokens, total)
    rows, width = runs * tokens * groups, total // groups
    sizes = _sizes(width, active // groups)
    _select_backward[(triton.cdiv(rows, sizes["ROWS"]),)](
        gradient, weights, indices, sums, of_logits, rows, groups, width, active // groups, NORMAL=normal, **sizes
    )
    return of_logits


def _sizes(width: int, active: int) -> dict[str, int]:
    columns, chosen = (1 << (size - 1).bit_length() for size in (width, active))
    return {"ROWS": max(1, min(128, BLOCK // columns)), "COLUMNS": columns, "CHOSEN": chosen}


@triton.jit(do_not_specialize=["rows", "rows_of_run", "groups", "active"])
def _select(
    logits, bias, weights, indices, sums, rows, rows_of_run, groups, width, active,
    BIASED: tl.constexpr, NORMAL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHOSEN: tl.constexpr,
):  # fmt: skip
    """The largest score of each row, its first column, and again without it: two reductions of 32 bits per expert."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    live = row < rows
    known = live[:, None] & (column < width)[None, :]
    begin = logits + row.to(tl.int64) * width
    score = tl.sigmoid(tl.load(begin[:, None] + column[None, :], mask=known, other=0.0))
    first = (row % groups) * width
    if BIASED:
        place = (row // rows_of_run * groups)[:, None] * width + first[:, None] + column[None, :]
        score += tl.load(bias + place, mask=known, other=0.0)
    # NaN is as low as any number but above what is taken: K different experts even in a run of NaN
    score = tl.where(known, tl.maximum(score, -3e38), float("-inf"))
    k = tl.arange(0, CHOSEN)
    at = tl.zeros([ROWS, CHOSEN], tl.int32)
    for i in range(active):
        best = tl.max(score, 1)
        found = tl.min(tl.where(score == best[:, None], column[None, :], COLUMNS), 1)
        at = tl.where((k == i)[None, :], found[:, None], at)
        score = tl.where(column[None, :] == found[:, None], float("-inf"), score)
    chosen = live[:, None] & (k < active)[None, :]
    weight = tl.sigmoid(tl.load(begin[:, None] + at, mask=chosen, other=float("-inf")))
    if NORMAL:
        total = tl.where(live, tl.sum(weight, 1), 1.0)
        weight /= total[:, None]
        tl.store(sums + row, total, mask=live)
    else:
        tl.store(sums + row, tl.full([ROWS], 1.0, tl.float32), mask=live)
    out = row.to(tl.int64)[:, None] * active + k[None, :]
    tl.store(weights + out, weight, mask=chosen)
    tl.store(indices + out, (first[:, None] + at).to(tl.int64), mask=chosen)


@triton.jit(do_not_specialize=["rows", "groups", "active"])
def _select_backward(
    gradient, weights, indices, sums, of_logits, rows, groups, width, active,
    NORMAL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHOSEN: tl.constexpr,
):  # fmt: skip
    """Zeros, and then the gradients of the chosen in their places."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    live = row < rows
    begin = of_logits + row.to(tl.int64) * width
    known = live[:, None] & (column < width)[None, :]
    tl.store(begin[:, None] + column[None, :], tl.zeros([ROWS, COLUMNS], tl.float32), mask=known)
    k = tl.arange(0, CHOSEN)
    given = row.to(tl.int64)[:, None] * active + k[None, :]
    chosen = live[:, None] & (k < active)[None, :]
    weight = tl.load(weights + given, mask=chosen, other=0.0)
    at = tl.load(indices + given, mask=chosen, other=0).to(tl.int32) - ((row % groups) * width)[:, None]
    found = tl.load(gradient + given, mask=chosen, other=0.0)
    if NORMAL:
        found -= tl.sum(found * weight, 1)[:, None]
    # weight is score / total, whose derivative by the logit is weight (1 - score)
    found *= weight * (1 - weight * tl.load(sums + row, mask=live, other=0.0)[:, None])
    tl.debug_barrier()  # other threads wrote the zeros
    tl.store(begin[:, None] + at, found, mask=chosen)
