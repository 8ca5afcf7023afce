"""A dense layer with the norm after it, of models so narrow that one program holds whole tokens.

A program takes some tokens of one run: their hidden units and the output of the layer never leave it. The backward pass
computes the hidden units again. Products accumulate in float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mue_check.models.kernels.experts import weight_gradients
from mue_check.models.kernels.pointwise import norm_gradients
from mue_check.models.kernels.tiles import NORM_ROWS, norm_programs, power, precision_of

HIDDEN = 32
"""Hidden units at a time."""


def dense_add_norm(
    x_RMD: Tensor,
    y_RMD: Tensor,
    up_RDF: Tensor,
    gate_RDF: Tensor,
    down_RFD: Tensor,
    gain_RD: Tensor,
    multiplier: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """x + multiplier * down(silu(gate y) * up y), and its norm with a gain."""
    total, out = torch.empty_like(x_RMD), torch.empty_like(x_RMD)
    _dense[(len(x_RMD), norm_programs(x_RMD.shape[1]))](
        x_RMD, y_RMD, up_RDF, gate_RDF, down_RFD, gain_RD, total, out, multiplier, eps, *_sizes(y_RMD, up_RDF),
        **_options(x_RMD),
    )  # fmt: skip
    return total, out


def dense_add_norm_backward(
    of_total: Tensor | None,
    of_out: Tensor,
    total_RMD: Tensor,
    y_RMD: Tensor,
    up_RDF: Tensor,
    gate_RDF: Tensor,
    down_RFD: Tensor,
    gain_RD: Tensor,
    multiplier: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, y, up, gate and down, and each program's part of that of the gain, [R, P, D]."""
    runs, tokens, width = y_RMD.shape
    of_x, of_y = torch.empty_like(y_RMD), torch.empty_like(y_RMD)
    h, of_up, of_gate = (y_RMD.new_empty(runs, tokens, up_RDF.shape[2]) for _ in range(3))
    of_gain = gain_RD.new_empty(runs, norm_programs(tokens), width)
    _dense_backward[(runs, norm_programs(tokens))](
        of_out if of_total is None else of_total, of_out, total_RMD, y_RMD, up_RDF, gate_RDF, down_RFD, gain_RD,
        of_x, of_y, h, of_up, of_gate, of_gain, multiplier, eps, *_sizes(y_RMD, up_RDF),
        ALSO=of_total is not None, **_options(y_RMD),
    )  # fmt: skip
    matrices = weight_gradients(y_RMD, of_x, up_RDF.unsqueeze(2), (h, of_up, of_gate), None, None, 1)
    up, gate, down = (m.view_as(w) for m, w in zip(matrices, (up_RDF, gate_RDF, down_RFD), strict=True))
    return of_x, of_y, up, gate, down, of_gain


def _sizes(y_RMD: Tensor, up_RDF: Tensor) -> tuple[int, ...]:
    return y_RMD.shape[1], y_RMD.shape[2], up_RDF.shape[2]


def _options(x: Tensor) -> dict[str, object]:
    return {
        "PRECISION": precision_of(x),
        "ROWS": NORM_ROWS,
        "WIDTH": power(x.shape[2]),
        "HIDDEN": HIDDEN,
        "num_warps": 8,
        "num_stages": 1,
    }


@triton.jit
def _place(tokens, width, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """This program's run, its first token of all, the places of its numbers from there on, and which of them exist."""
    run, t, d = tl.program_id(0).to(tl.int64), tl.arange(0, ROWS)[:, None], tl.arange(0, WIDTH)[None, :]
    live = (tl.program_id(1) * ROWS + t < tokens) & (d < width)
    return run, run * tokens + tl.program_id(1) * ROWS, t * width + d, live


@triton.jit(do_not_specialize=["tokens"])
def _dense(
    x, y, up, gate, down, gain, total, out, multiplier, eps, tokens, width, hidden,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, HIDDEN: tl.constexpr,
):  # fmt: skip
    run, first, place, live = _place(tokens, width, ROWS, WIDTH)
    d, f = tl.arange(0, WIDTH), tl.arange(0, HIDDEN)
    first *= width
    matrix = run * width * hidden
    rows = tl.load(y + first + place, mask=live, other=0.0)
    stream = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(0, hidden, HIDDEN):
        known = (d[:, None] < width) & (start + f[None, :] < hidden)
        at = matrix + start + d[:, None] * hidden + f[None, :]
        by_gate = tl.dot(rows, tl.load(gate + at, mask=known, other=0.0), input_precision=PRECISION)
        by_up = tl.dot(rows, tl.load(up + at, mask=known, other=0.0), input_precision=PRECISION)
        h = (by_gate * tl.sigmoid(by_gate) * by_up).to(rows.dtype)
        known = (start + f[:, None] < hidden) & (d[None, :] < width)
        at = matrix + start * width + f[:, None] * width + d[None, :]
        stream = tl.dot(h, tl.load(down + at, mask=known, other=0.0), stream, input_precision=PRECISION)
    stream = stream * multiplier + tl.load(x + first + place, mask=live, other=0.0).to(tl.float32)
    stream = stream.to(total.dtype.element_ty)
    tl.store(total + first + place, stream, mask=live)
    stream = stream.to(tl.float32)
    scale = tl.rsqrt(tl.sum(stream * stream, 1) / width + eps)
    factor = tl.load(gain + run * width + d, mask=d < width, other=0.0).to(tl.float32)
    tl.store(out + first + place, (stream * scale[:, None] * factor[None, :]).to(out.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["tokens"])
def _dense_backward(
    of_total, of_out, total, y, up, gate, down, gain,
    of_x, of_y, h, of_up, of_gate, of_gain, multiplier, eps, tokens, width, hidden,
    ALSO: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, HIDDEN: tl.constexpr,
):  # fmt: skip
    run, row, place, live = _place(tokens, width, ROWS, WIDTH)
    t, d, f = tl.arange(0, ROWS), tl.arange(0, WIDTH), tl.arange(0, HIDDEN)
    first = row * width
    stream = tl.load(total + first + place, mask=live, other=0.0).to(tl.float32)
    gradient = tl.load(of_out + first + place, mask=live, other=0.0).to(tl.float32)
    factor = tl.load(gain + run * width + d, mask=d < width, other=0.0).to(tl.float32)
    gradient, gains = norm_gradients(gradient, stream, factor, width, eps)
    if ALSO:
        gradient += tl.load(of_total + first + place, mask=live, other=0.0).to(tl.float32)
    part = (run * tl.num_programs(1) + tl.program_id(1)) * width + d
    tl.store(of_gain + part, gains.to(of_gain.dtype.element_ty), mask=d < width)
    gradient = gradient.to(of_x.dtype.element_ty)
    tl.store(of_x + first + place, gradient, mask=live)
    rows = tl.load(y + first + place, mask=live, other=0.0)
    matrix = run * width * hidden
    of_rows = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(0, hidden, HIDDEN):
        known = (d[:, None] < width) & (start + f[None, :] < hidden)
        at = matrix + start + d[:, None] * hidden + f[None, :]
        by_gate = tl.dot(rows, tl.load(gate + at, mask=known, other=0.0), input_precision=PRECISION)
        by_up = tl.dot(rows, tl.load(up + at, mask=known, other=0.0), input_precision=PRECISION)
        of_down = matrix + start * width + f[None, :] * width + d[:, None]
        of_h = tl.dot(gradient, tl.load(down + of_down, mask=known, other=0.0), input_precision=PRECISION) * multiplier
        half = tl.sigmoid(by_gate)
        silu = by_gate * half
        kept = (tl.program_id(1) * ROWS + t[:, None] < tokens) & (start + f[None, :] < hidden)
        unit = row * hidden + start + t[:, None] * hidden + f[None, :]
        # the gradient of down takes the hidden units with the multiplier
        tl.store(h + unit, (silu * by_up * multiplier).to(h.dtype.element_ty), mask=kept)
        of_u = (of_h * silu).to(rows.dtype)
        of_g = (of_h * by_up * (half + silu * (1 - half))).to(rows.dtype)
        tl.store(of_up + unit, of_u, mask=kept)
        tl.store(of_gate + unit, of_g, mask=kept)
        part_of = tl.trans(tl.load(gate + at, mask=known, other=0.0))
        of_rows = tl.dot(of_g, part_of, of_rows, input_precision=PRECISION)
        part_of = tl.trans(tl.load(up + at, mask=known, other=0.0))
        of_rows = tl.dot(of_u, part_of, of_rows, input_precision=PRECISION)
    tl.store(of_y + first + place, of_rows.to(of_y.dtype.element_ty), mask=live)
