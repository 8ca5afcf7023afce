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
def _weights(q, k, scale, context, CAUSAL: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr):
    t = tl.arange(0, ROWS)
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    seen = t[None, :] < context
    if CAUSAL:
        seen = seen & (t[None, :] <= t[:, None])
    scores = tl.where(seen, scores, -1e30)  # not -inf, of which a row of NaN would take the difference
    scores = tl.exp(scores - tl.max(scores, 1)[:, None])
    return scores * (1 / tl.sum(scores, 1))[:, None]


@triton.jit
def _places(context, heads, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Where this program's head is: in the queries, how far on in keys and values, in the output, and which exist."""
    t, c = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    row, all_heads = tl.program_id(0).to(tl.int64) * context + t, heads * width
    column = tl.program_id(1) * width + c[None, :]
    live = (t[:, None] < context) & (c[None, :] < width)
    return row[:, None] * 3 * all_heads + column, all_heads, row[:, None] * all_heads + column, live


@triton.jit(do_not_specialize=["context", "heads"])
def _attention(
    qkv, out, scale, context, heads, width,
    CAUSAL: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    place, on, of_out, live = _places(context, heads, width, ROWS, COLUMNS)
    q = tl.load(qkv + place, mask=live, other=0.0)
    k = tl.load(qkv + place + on, mask=live, other=0.0)
    weights = _weights(q, k, scale, context, CAUSAL, PRECISION, ROWS)
    v = tl.load(qkv + place + 2 * on, mask=live, other=0.0)
    mixed = tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
    tl.store(out + of_out, mixed.to(out.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["context", "heads"])
def _attention_backward(
    gradient, qkv, of_qkv, scale, context, heads, width,
    CAUSAL: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    place, on, of_out, live = _places(context, heads, width, ROWS, COLUMNS)
    q = tl.load(qkv + place, mask=live, other=0.0)
    k = tl.load(qkv + place + on, mask=live, other=0.0)
    v = tl.load(qkv + place + 2 * on, mask=live, other=0.0)
    weights = _weights(q, k, scale, context, CAUSAL, PRECISION, ROWS)
    of_mixed = tl.load(gradient + of_out, mask=live, other=0.0)
    of_v = tl.dot(tl.trans(weights.to(v.dtype)), of_mixed, input_precision=PRECISION)
    tl.store(of_qkv + place + 2 * on, of_v.to(of_qkv.dtype.element_ty), mask=live)
    of_weights = tl.dot(of_mixed, tl.trans(v), input_precision=PRECISION)
    of_scores = weights * (of_weights - tl.sum(weights * of_weights, 1)[:, None]) * scale
    of_scores = of_scores.to(q.dtype)
    of_q = tl.dot(of_scores, k, input_precision=PRECISION)
    tl.store(of_qkv + place, of_q.to(of_qkv.dtype.element_ty), mask=live)
    of_k = tl.dot(tl.trans(of_scores), q, input_precision=PRECISION)
    tl.store(of_qkv + place + on, of_k.to(of_qkv.dtype.element_ty), mask=live)
