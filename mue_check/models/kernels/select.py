"""Choose each token's experts by sigmoid score: scores, bias and the best K in one pass over the logits."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
"""Scores of one program."""


def top_sigmoid(logits_RME: Tensor, bias_RE: Tensor | None, active: int, groups: int) -> tuple[Tensor, Tensor]:
    """Scores and indices of the best ``active`` / ``groups`` of each group, best first: both [R, M, K]."""
    runs, tokens, total = logits_RME.shape
    scores = torch.empty(runs, tokens, active, dtype=logits_RME.dtype, device=logits_RME.device)
    indices = torch.empty(runs, tokens, active, dtype=torch.int64, device=logits_RME.device)
    rows, width = runs * tokens * groups, total // groups
    sizes = _sizes(width)
    _select[(triton.cdiv(rows, sizes["ROWS"]),)](
        logits_RME, logits_RME if bias_RE is None else bias_RE, scores, indices,
        rows, tokens * groups, groups, width, active // groups, BIASED=bias_RE is not None, **sizes,
    )  # fmt: skip
    return scores, indices


def top_sigmoid_backward(gradient: Tensor, scores: Tensor, indices: Tensor, total: int, groups: int) -> Tensor:
    """[R, M, E]: the gradient of the logits, 0 where an expert was not chosen."""
    runs, tokens, active = scores.shape
    of_logits = torch.empty(runs, tokens, total, dtype=scores.dtype, device=scores.device)
    rows, width = runs * tokens * groups, total // groups
    sizes = _sizes(width)
    _select_backward[(triton.cdiv(rows, sizes["ROWS"]),)](
        gradient, scores, indices, of_logits, rows, groups, width, active // groups,
        CHOSEN=1 << (active // groups - 1).bit_length(), **sizes,
    )  # fmt: skip
    return of_logits


def _sizes(width: int) -> dict[str, int]:
    columns = 1 << (width - 1).bit_length()
    return {"ROWS": max(1, min(128, BLOCK // columns)), "COLUMNS": columns}


LOWEST = tl.constexpr(-(2**63))
"""The key of what cannot be chosen."""


@triton.jit(do_not_specialize=["rows", "rows_of_run", "groups", "active"])
def _select(
    logits, bias, scores, indices, rows, rows_of_run, groups, width, active,
    BIASED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Each score and its column as one integer key, so that one maximum finds both."""
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
    # NaN is below every number: K different experts even in a run of NaN
    bits = tl.where(score == score, score, -3e38).to(tl.int32, bitcast=True)
    bits = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # now in the order of the numbers
    # the first of equal scores has the largest key
    key = (bits.to(tl.int64) << 32) | (COLUMNS - 1 - column).to(tl.int64)[None, :]
    key = tl.where(known, key, LOWEST)
    out = row.to(tl.int64) * active
    for k in range(active):
        best = tl.max(key, 1)
        at = COLUMNS - 1 - (best & 0xFFFFFFFF).to(tl.int32)
        tl.store(scores + out + k, tl.sigmoid(tl.load(begin + at, mask=live, other=0.0)), mask=live)
        tl.store(indices + out + k, (first + at).to(tl.int64), mask=live)
        key = tl.where(key == best[:, None], LOWEST, key)


@triton.jit(do_not_specialize=["rows", "groups", "active"])
def _select_backward(
    gradient, scores, indices, of_logits, rows, groups, width, active,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHOSEN: tl.constexpr,
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
    score = tl.load(scores + given, mask=chosen, other=0.0)
    at = tl.load(indices + given, mask=chosen, other=0).to(tl.int32) - ((row % groups) * width)[:, None]
    found = tl.load(gradient + given, mask=chosen, other=0.0) * score * (1 - score)
    tl.debug_barrier()  # other threads wrote the zeros
    tl.store(begin[:, None] + at, found, mask=chosen)
