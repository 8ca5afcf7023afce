"""Choose each token's experts by sigmoid score: scores, bias and the best K in one pass over the logits."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096
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
        gradient, scores, indices, of_logits, rows, groups, width, active // groups, **sizes
    )
    return of_logits


def _sizes(width: int) -> dict[str, int]:
    columns = 1 << (width - 1).bit_length()
    return {"ROWS": max(1, min(128, BLOCK // columns)), "COLUMNS": columns}


@triton.jit(do_not_specialize=["rows", "rows_of_run", "groups", "active"])
def _select(
    logits, bias, scores, indices, rows, rows_of_run, groups, width, active,
    BIASED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    live = row < rows
    known = live[:, None] & (column < width)[None, :]
    score = tl.sigmoid(tl.load(logits + row.to(tl.int64)[:, None] * width + column[None, :], mask=known, other=0.0))
    key = score
    first = (row % groups) * width
    if BIASED:
        place = (row // rows_of_run * groups)[:, None] * width + first[:, None] + column[None, :]
        key += tl.load(bias + place, mask=known, other=0.0)
    # below every number, but above what is taken already: K different experts even in a run of NaN
    key = tl.where(key == key, key, -3e38)
    key = tl.where(known, key, float("-inf"))
    out = row.to(tl.int64) * active
    for k in range(active):
        best = tl.max(key, 1)
        at = tl.min(tl.where(key == best[:, None], column[None, :], COLUMNS), 1)
        chosen = column[None, :] == at[:, None]
        tl.store(scores + out + k, tl.sum(tl.where(chosen, score, 0.0), 1), mask=live)
        tl.store(indices + out + k, (first + at).to(tl.int64), mask=live)
        key = tl.where(chosen, float("-inf"), key)


@triton.jit(do_not_specialize=["rows", "groups", "active"])
def _select_backward(
    gradient, scores, indices, of_logits, rows, groups, width, active, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    live = row < rows
    first = (row % groups) * width
    given = row.to(tl.int64) * active
    found = tl.zeros([ROWS, COLUMNS], tl.float32)
    for k in range(active):
        score = tl.load(scores + given + k, mask=live, other=0.0)
        at = tl.load(indices + given + k, mask=live, other=0).to(tl.int32) - first
        part = tl.load(gradient + given + k, mask=live, other=0.0) * score * (1 - score)
        found = tl.where(column[None, :] == at[:, None], part[:, None], found)
    known = live[:, None] & (column < width)[None, :]
    tl.store(of_logits + row.to(tl.int64)[:, None] * width + column[None, :], found, mask=known)
