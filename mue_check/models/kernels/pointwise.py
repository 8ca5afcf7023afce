"""Sum and norm of the residual stream, and SwiGLU, each as one pass over memory forward and one backward."""

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 128
"""Tokens of one program of the norm, which it takes a few at a time."""
BLOCK_OF_NORM = 2048
"""Numbers that it takes at a time."""
BLOCK = 1024
"""Numbers of one program of SwiGLU."""


def add_norm(x_RMD: Tensor, branch_RMD: Tensor, gain_RD: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + branch, and its norm with a gain."""
    total, out = torch.empty_like(x_RMD), torch.empty_like(x_RMD)
    runs, tokens, width = x_RMD.shape
    _add_norm[(runs, triton.cdiv(tokens, ROWS))](
        x_RMD, branch_RMD, gain_RD, total, out, tokens, width, eps, ROWS=ROWS, **_sizes(width)
    )
    return total, out


def add_norm_backward(
    of_total: Tensor | None, of_out: Tensor, total_RMD: Tensor, gain_RD: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Gradients of x (and of the branch, which has the same), and of the gain."""
    runs, tokens, width = total_RMD.shape
    programs = triton.cdiv(tokens, ROWS)
    of_x = torch.empty_like(total_RMD)
    of_gain = torch.empty(runs, programs, width, dtype=torch.float32, device=total_RMD.device)
    _add_norm_backward[(runs, programs)](
        of_out if of_total is None else of_total, of_out, total_RMD, gain_RD, of_x, of_gain, tokens, width, eps,
        ALSO=of_total is not None, ROWS=ROWS, **_sizes(width),
    )  # fmt: skip
    return of_x, of_gain.sum(1).to(gain_RD.dtype)


def _sizes(width: int) -> dict[str, int]:
    columns = 1 << (width - 1).bit_length()
    return {"STEP": max(1, min(ROWS, BLOCK_OF_NORM // columns)), "COLUMNS": columns}


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    out = torch.empty_like(gate)
    _swiglu[(triton.cdiv(gate.numel(), BLOCK),)](gate, up, out, gate.numel(), BLOCK=BLOCK)
    return out


def swiglu_backward(of_out: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of both."""
    of_gate, of_up = torch.empty_like(gate), torch.empty_like(up)
    grid = (triton.cdiv(gate.numel(), BLOCK),)
    _swiglu_backward[grid](of_out, gate, up, of_gate, of_up, gate.numel(), BLOCK=BLOCK)
    return of_gate, of_up


@triton.jit(do_not_specialize=["tokens"])
def _add_norm(
    x, branch, gain, total, out, tokens, width, eps,
    ROWS: tl.constexpr, STEP: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    run = tl.program_id(0)
    d = tl.arange(0, COLUMNS)
    factor = tl.load(gain + run * width + d, mask=d < width, other=0.0).to(tl.float32)
    for start in range(0, ROWS, STEP):
        row = tl.program_id(1) * ROWS + start + tl.arange(0, STEP)
        live = (row < tokens)[:, None] & (d < width)[None, :]
        place = (run * tokens + row).to(tl.int64)[:, None] * width + d[None, :]
        stream = tl.load(x + place, mask=live, other=0.0).to(tl.float32)
        stream += tl.load(branch + place, mask=live, other=0.0).to(tl.float32)
        stream = stream.to(total.dtype.element_ty)
        tl.store(total + place, stream, mask=live)
        stream = stream.to(tl.float32)
        scale = tl.rsqrt(tl.sum(stream * stream, 1) / width + eps)
        normed = stream * scale[:, None] * factor[None, :]
        tl.store(out + place, normed.to(out.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["tokens"])
def _add_norm_backward(
    of_total, of_out, total, gain, of_x, of_gain, tokens, width, eps,
    ALSO: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    run = tl.program_id(0)
    d = tl.arange(0, COLUMNS)
    factor = tl.load(gain + run * width + d, mask=d < width, other=0.0).to(tl.float32)
    gains = tl.zeros([COLUMNS], tl.float32)
    for start in range(0, ROWS, STEP):
        row = tl.program_id(1) * ROWS + start + tl.arange(0, STEP)
        live = (row < tokens)[:, None] & (d < width)[None, :]
        place = (run * tokens + row).to(tl.int64)[:, None] * width + d[None, :]
        stream = tl.load(total + place, mask=live, other=0.0).to(tl.float32)
        gradient = tl.load(of_out + place, mask=live, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(stream * stream, 1) / width + eps)[:, None]
        unit = stream * scale
        gains += tl.sum(gradient * unit, 0)
        gradient *= factor[None, :]
        # the norm removes the part of the gradient that is parallel to the token
        along = tl.sum(gradient * unit, 1) / width
        gradient = (gradient - unit * along[:, None]) * scale
        if ALSO:
            gradient += tl.load(of_total + place, mask=live, other=0.0).to(tl.float32)
        tl.store(of_x + place, gradient.to(of_x.dtype.element_ty), mask=live)
    place = (run * tl.num_programs(1) + tl.program_id(1)) * width + d
    tl.store(of_gain + place, gains, mask=d < width)


@triton.jit
def _swiglu(gate, up, out, numbers, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < numbers
    g = tl.load(gate + at, mask=live, other=0.0).to(tl.float32)
    u = tl.load(up + at, mask=live, other=0.0).to(tl.float32)
    tl.store(out + at, (g * tl.sigmoid(g) * u).to(out.dtype.element_ty), mask=live)


@triton.jit
def _swiglu_backward(of_out, gate, up, of_gate, of_up, numbers, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < numbers
    g = tl.load(gate + at, mask=live, other=0.0).to(tl.float32)
    u = tl.load(up + at, mask=live, other=0.0).to(tl.float32)
    gradient = tl.load(of_out + at, mask=live, other=0.0).to(tl.float32)
    half = tl.sigmoid(g)
    silu = g * half
    tl.store(of_up + at, (gradient * silu).to(of_up.dtype.element_ty), mask=live)
    of_g = gradient * u * (half + silu * (1 - half))
    tl.store(of_gate + at, of_g.to(of_gate.dtype.element_ty), mask=live)
