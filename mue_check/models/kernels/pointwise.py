"""Sum and norm of the residual stream, SwiGLU and cross-entropy, each one pass over memory forward and one backward."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mue_check.models.kernels.tiles import NORM_ROWS, norm_programs

AT_A_TIME = 2048
"""Numbers that it, or a program of the cross-entropy, takes at a time."""
BLOCK = 1024
"""Numbers of one program of SwiGLU."""


def add_norm(x_RMD: Tensor, branch_RMD: Tensor, gain_RD: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + branch, and its norm with a gain. A branch [R, T, D] of fewer tokens is repeated."""
    total, out = torch.empty_like(x_RMD), torch.empty_like(x_RMD)
    runs, tokens, width = x_RMD.shape
    _add_norm[(runs, norm_programs(tokens))](
        x_RMD, branch_RMD, gain_RD, total, out, tokens, branch_RMD.shape[1], width, eps, ROWS=NORM_ROWS, **_sizes(width)
    )
    return total, out


def add_norm_backward(
    of_total: Tensor | None, of_out: Tensor, total_RMD: Tensor, gain_RD: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The gradient of the sum, and each program's part of that of the gain, [R, P, D]."""
    runs, tokens, width = total_RMD.shape
    programs = norm_programs(tokens)
    of_x = torch.empty_like(total_RMD)
    of_gain = gain_RD.new_empty(runs, programs, width)
    _add_norm_backward[(runs, programs)](
        of_out if of_total is None else of_total, of_out, total_RMD, gain_RD, of_x, of_gain, tokens, width, eps,
        ALSO=of_total is not None, ROWS=NORM_ROWS, **_sizes(width),
    )  # fmt: skip
    return of_x, of_gain


def _sizes(width: int) -> dict[str, int]:
    columns = 1 << (width - 1).bit_length()
    return {"STEP": max(1, min(NORM_ROWS, AT_A_TIME // columns)), "COLUMNS": columns}


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


def cross_entropy(logits_RMV: Tensor, tokens_RBT: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over the tokens of a run, [R], and the logarithm of each token's sum of exponentials, [R, M].

    ``tokens_RBT``: B sequences of T+1, each token predicted from those before it: M = B*T.
    """
    runs, count, classes = logits_RMV.shape
    loss_RM, normalizer_RM = torch.empty(2, runs, count, dtype=torch.float32, device=logits_RMV.device)
    sizes = _sizes(classes)
    _cross_entropy[(runs, triton.cdiv(count, sizes["STEP"]))](
        logits_RMV, tokens_RBT, loss_RM, normalizer_RM, count, tokens_RBT.shape[2] - 1, classes, **sizes
    )
    return loss_RM.mean(1), normalizer_RM


def cross_entropy_backward(of_mean_R: Tensor, logits_RMV: Tensor, tokens_RBT: Tensor, normalizer_RM: Tensor) -> Tensor:
    """The gradient of the logits."""
    runs, count, classes = logits_RMV.shape
    of_logits = torch.empty_like(logits_RMV)
    sizes = _sizes(classes)
    _cross_entropy_backward[(runs, triton.cdiv(count, sizes["STEP"]))](
        of_mean_R, logits_RMV, tokens_RBT, normalizer_RM, of_logits, count, tokens_RBT.shape[2] - 1, classes, **sizes
    )
    return of_logits


@triton.jit(do_not_specialize=["tokens", "period"])
def _add_norm(
    x, branch, gain, total, out, tokens, period, width, eps,
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
        of_branch = (run * period + row % period).to(tl.int64)[:, None] * width + d[None, :]
        stream += tl.load(branch + of_branch, mask=live, other=0.0).to(tl.float32)
        stream = stream.to(total.dtype.element_ty)
        tl.store(total + place, stream, mask=live)
        stream = stream.to(tl.float32)
        scale = tl.rsqrt(tl.sum(stream * stream, 1) / width + eps)
        normed = stream * scale[:, None] * factor[None, :]
        tl.store(out + place, normed.to(out.dtype.element_ty), mask=live)


@triton.jit
def norm_gradients(gradient, stream, factor, width, eps):
    """Of tokens and of the gain, by that of the norm of these tokens."""
    scale = tl.rsqrt(tl.sum(stream * stream, 1) / width + eps)[:, None]
    unit = stream * scale
    gains = tl.sum(gradient * unit, 0)
    gradient *= factor[None, :]
    # the norm removes the part of the gradient that is parallel to the token
    along = tl.sum(gradient * unit, 1) / width
    return (gradient - unit * along[:, None]) * scale, gains


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
        gradient, of_these = norm_gradients(gradient, stream, factor, width, eps)
        gains += of_these
        if ALSO:
            gradient += tl.load(of_total + place, mask=live, other=0.0).to(tl.float32)
        tl.store(of_x + place, gradient.to(of_x.dtype.element_ty), mask=live)
    place = (run * tl.num_programs(1) + tl.program_id(1)) * width + d
    tl.store(of_gain + place, gains.to(of_gain.dtype.element_ty), mask=d < width)


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


@triton.jit
def _scores(logits, tokens, count, context, classes, STEP: tl.constexpr, COLUMNS: tl.constexpr):
    """The tokens of this program, where their logits are, which of these exist, the logits, and which is the target."""
    row = tl.program_id(1) * STEP + tl.arange(0, STEP)
    at = (tl.program_id(0) * count + row).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    place = at[:, None] * classes + column[None, :]
    live = (row < count)[:, None] & (column < classes)[None, :]
    # every sequence has one token more than logits, its first
    target = tl.load(tokens + at + at // context + 1, mask=row < count, other=0)
    scores = tl.load(logits + place, mask=live, other=-1e30).to(tl.float32)
    return at, row < count, place, live, scores, column[None, :] == target[:, None]


@triton.jit(do_not_specialize=["count", "context"])
def _cross_entropy(
    logits, tokens, losses, normalizers, count, context, classes, STEP: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    at, mine, _, _, scores, is_target = _scores(logits, tokens, count, context, classes, STEP, COLUMNS)
    most = tl.max(scores, 1)
    normalizer = most + tl.log(tl.sum(tl.exp(scores - most[:, None]), 1))
    tl.store(normalizers + at, normalizer, mask=mine)
    tl.store(losses + at, normalizer - tl.sum(tl.where(is_target, scores, 0.0), 1), mask=mine)


@triton.jit(do_not_specialize=["count", "context"])
def _cross_entropy_backward(
    of_mean, logits, tokens, normalizers, of_logits, count, context, classes,
    STEP: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    at, mine, place, live, scores, is_target = _scores(logits, tokens, count, context, classes, STEP, COLUMNS)
    normalizer = tl.load(normalizers + at, mask=mine, other=0.0)
    share = tl.exp(scores - normalizer[:, None])
    gradient = (share - is_target.to(tl.float32)) * (tl.load(of_mean + tl.program_id(0)) / count)
    tl.store(of_logits + place, gradient.to(of_logits.dtype.element_ty), mask=live)
