"""Attention over short contexts: one program holds all scores of one head of one sequence.

Queries, keys and values are read from one tensor, and their gradients are written to one, so nothing is copied. Only
that tensor is kept: the backward pass computes the scores again.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mue_check.models.kernels.tiles import power, precision_of


def attention(qkv_NT3HK: Tensor, scale: float, causal: bool) -> Tensor:
    """softmax(scale q k^T) v: [N, T, H*K]."""
    sequences, context, _, heads, width = qkv_NT3HK.shape
    out = qkv_NT3HK.new_empty(sequences, context, heads * width)
    _attention[(sequences, heads)](qkv_NT3HK, out, scale, context, heads, width, **_sizes(qkv_NT3HK, causal))
    return out


def attention_backward(of_out: Tensor, qkv_NT3HK: Tensor, scale: float, causal: bool) -> Tensor:
    """[N, T, 3, H, K]."""
    sequences, context, _, heads, width = qkv_NT3HK.shape
    of_qkv = torch.empty_like(qkv_NT3HK)
    _attention_backward[(sequences, heads)](
        of_out, qkv_NT3HK, of_qkv, scale, context, heads, width, **_sizes(qkv_NT3HK, causal)
    )
    return of_qkv


def _sizes(qkv: Tensor, causal: bool) -> dict[str, object]:
    rows = power(qkv.shape[1])
    return {
        "CAUSAL": causal,
        "PRECISION": precision_of(qkv),
        "ROWS": rows,
        "COLUMNS": power(qkv.shape[4]),
        "num_warps": max(1, rows // 16),
    }


@triton.jit
def _part(qkv, which, context, heads, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Where the queries (0), keys (1) or values (2) of this program's head are, and which of them exist."""
    t, c = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    first = tl.program_id(0).to(tl.int64) * context * 3 * heads * width + (which * heads + tl.program_id(1)) * width
    place = qkv + first + t[:, None] * (3 * heads * width) + c[None, :]
    return place, (t[:, None] < context) & (c[None, :] < width)


@triton.jit
def _weights(q, k, scale, context, CAUSAL: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr):
    t = tl.arange(0, ROWS)
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    seen = t[None, :] < context
    if CAUSAL:
        seen = seen & (t[None, :] <= t[:, None])
    scores = tl.where(seen, scores, -1e30)  # not -inf, of which a row of NaN would take the difference
    scores = tl.exp(scores - tl.max(scores, 1)[:, None])
    return scores / tl.sum(scores, 1)[:, None]


@triton.jit(do_not_specialize=["context", "heads"])
def _attention(
    qkv, out, scale, context, heads, width,
    CAUSAL: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    place, kept = _part(qkv, 0, context, heads, width, ROWS, COLUMNS)
    q = tl.load(place, mask=kept, other=0.0)
    place, kept = _part(qkv, 1, context, heads, width, ROWS, COLUMNS)
    k = tl.load(place, mask=kept, other=0.0)
    weights = _weights(q, k, scale, context, CAUSAL, PRECISION, ROWS)
    place, kept = _part(qkv, 2, context, heads, width, ROWS, COLUMNS)
    v = tl.load(place, mask=kept, other=0.0)
    mixed = tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
    t, c = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    row = tl.program_id(0).to(tl.int64) * context + t
    place = out + row[:, None] * (heads * width) + tl.program_id(1) * width + c[None, :]
    tl.store(place, mixed.to(out.dtype.element_ty), mask=kept)


@triton.jit(do_not_specialize=["context", "heads"])
def _attention_backward(
    of_out, qkv, of_qkv, scale, context, heads, width,
    CAUSAL: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    place, kept = _part(qkv, 0, context, heads, width, ROWS, COLUMNS)
    q = tl.load(place, mask=kept, other=0.0)
    place, kept = _part(qkv, 1, context, heads, width, ROWS, COLUMNS)
    k = tl.load(place, mask=kept, other=0.0)
    place, kept = _part(qkv, 2, context, heads, width, ROWS, COLUMNS)
    v = tl.load(place, mask=kept, other=0.0)
    t, c = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    row = tl.program_id(0).to(tl.int64) * context + t
    place = of_out + row[:, None] * (heads * width) + tl.program_id(1) * width + c[None, :]
    of_mixed = tl.load(place, mask=kept, other=0.0)
    weights = _weights(q, k, scale, context, CAUSAL, PRECISION, ROWS)
    of_v = tl.dot(tl.trans(weights.to(v.dtype)), of_mixed, input_precision=PRECISION)
    place, kept = _part(of_qkv, 2, context, heads, width, ROWS, COLUMNS)
    tl.store(place, of_v.to(of_qkv.dtype.element_ty), mask=kept)
    of_weights = tl.dot(of_mixed, tl.trans(v), input_precision=PRECISION)
    of_scores = weights * (of_weights - tl.sum(weights * of_weights, 1)[:, None]) * scale
    of_scores = of_scores.to(q.dtype)
    place, kept = _part(of_qkv, 0, context, heads, width, ROWS, COLUMNS)
    of_q = tl.dot(of_scores, k, input_precision=PRECISION)
    tl.store(place, of_q.to(of_qkv.dtype.element_ty), mask=kept)
    place, kept = _part(of_qkv, 1, context, heads, width, ROWS, COLUMNS)
    of_k = tl.dot(tl.trans(of_scores), q, input_precision=PRECISION)
    tl.store(place, of_k.to(of_qkv.dtype.element_ty), mask=kept)
