"""Pointwise operations. The norm has its own backward pass, because autograd's takes twice the time."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mue_check.models import fused_pointwise
from mue_check.models.kernels import uses_kernel

EPS = 1e-6


def apply(function: type[torch.autograd.Function], *arguments: Tensor | float) -> Tensor:
    """``function.apply`` with types."""
    out: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return out


def rms_norm(x_RMD: Tensor, gain_RD: Tensor) -> Tensor:
    """x / rms(x) * gain, per token (arXiv 1910.07467)."""
    if x_RMD.is_cuda or x_RMD.dtype is torch.bfloat16:  # one kernel, which sums in float32
        return F.rms_norm(x_RMD, x_RMD.shape[-1:], eps=EPS) * gain_RD.unsqueeze(1)
    return apply(_RMSNorm, x_RMD, gain_RD)


def add_norm(x_RMD: Tensor, branch_RMD: Tensor, gain_RD: Tensor) -> tuple[Tensor, Tensor]:
    """The residual stream after a branch, and its norm. A branch of fewer tokens is repeated.

    The gain may be one of ``norm_gains``.
    """
    if _norm_by_kernel(x_RMD):
        return fused_pointwise.add_norm(x_RMD, branch_RMD, gain_RD, EPS)
    if branch_RMD.shape[1] == x_RMD.shape[1]:
        total = x_RMD + branch_RMD
    else:
        runs, period, width = branch_RMD.shape
        total = (x_RMD.view(runs, -1, period, width) + branch_RMD.unsqueeze(1)).view_as(x_RMD)
    return total, rms_norm(total, gain_RD)


def norm_gains(gains_RD: Sequence[Tensor], x_RMD: Tensor) -> Sequence[Tensor]:
    """The gains of all norms of a pass, in the form in which ``add_norm`` computes their gradients the fastest."""
    return fused_pointwise.for_programs(gains_RD, x_RMD) if _norm_by_kernel(x_RMD) else gains_RD


def _norm_by_kernel(x_RMD: Tensor) -> bool:
    return uses_kernel("pointwise", x_RMD) and x_RMD.shape[-1] <= fused_pointwise.MOST_COLUMNS


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (arXiv 2002.05202)."""
    if uses_kernel("pointwise", gate):
        out: Tensor = fused_pointwise.swiglu(gate, up)
        return out
    return F.silu(gate) * up


def cross_entropy(logits_RMV: Tensor, tokens_RBT: Tensor) -> Tensor:
    """The mean of each run, [R], in nats: tokens [R, B, T+1], each predicted from those before. M = B*T."""
    if uses_kernel("pointwise", logits_RMV) and logits_RMV.shape[-1] <= fused_pointwise.MOST_COLUMNS:
        means: Tensor = fused_pointwise.cross_entropy(logits_RMV, tokens_RBT)[0]
        return means
    targets = tokens_RBT[..., 1:].flatten(1)
    loss = F.cross_entropy(wide(logits_RMV).flatten(0, 1), targets.flatten(), reduction="none")
    return loss.view(targets.shape).mean(1)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain_RD: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(EPS).rsqrt_()
        unit = x * scale
        ctx.save_for_backward(unit, scale, gain_RD)
        return unit * gain_RD.unsqueeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        unit, scale, gain_RD = ctx.saved_tensors
        gain = gain_RD.unsqueeze(1)
        along = gradient * unit
        gain_gradient = along.sum(1)
        # the norm removes the part of the gradient that is parallel to the token
        along = along.mul_(gain).sum(-1, keepdim=True).div_(-unit.shape[-1])
        of_x: Tensor = (gradient * gain).addcmul_(unit, along).mul_(scale)
        return of_x, gain_gradient


def scaled(x: Tensor, multiplier: float) -> Tensor:
    """x * multiplier, without a pass over memory if the multiplier is 1."""
    return x if multiplier == 1 else x * multiplier


def scaled_product(x_RMD: Tensor, weight_RDF: Tensor, multiplier: float) -> Tensor:
    """x @ weight * multiplier. A GPU multiplies inside the product, which needs no pass over memory."""
    if x_RMD.is_cuda and multiplier != 1:
        return apply(_ScaledProduct, x_RMD, weight_RDF, multiplier)
    return scaled(torch.bmm(x_RMD, weight_RDF), multiplier)


def dense_swiglu(x_RMD: Tensor, up_RDF: Tensor, gate_RDF: Tensor, down_RFD: Tensor, multiplier: float) -> Tensor:
    """multiplier * down(silu(gate x) * up x), [R, M, D]."""
    if uses_kernel("pointwise", x_RMD):
        return apply(_DenseSwiGLU, x_RMD, up_RDF, gate_RDF, down_RFD, multiplier)
    h = swiglu(torch.bmm(x_RMD, gate_RDF), torch.bmm(x_RMD, up_RDF))
    return scaled_product(h, down_RFD, multiplier)


class _DenseSwiGLU(torch.autograd.Function):
    """The products of a layer with its kernels in between. Both gradients of x are summed inside the second product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, gate: Tensor, down: Tensor, multiplier: float) -> Tensor:
        by_gate, by_up = torch.bmm(x, gate), torch.bmm(x, up)
        h = fused_pointwise.swiglu(by_gate, by_up)
        ctx.save_for_backward(x, up, gate, down, by_gate, by_up, h)
        ctx.multiplier = multiplier
        return _product(h, down, multiplier)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        x, up, gate, down, by_gate, by_up, h = ctx.saved_tensors
        of_h = _product(gradient, down.transpose(1, 2), ctx.multiplier)
        of_down = _product(h.transpose(1, 2), gradient, ctx.multiplier)
        of_gate, of_up = fused_pointwise.swiglu_backward(of_h, by_gate, by_up)
        of_x = torch.bmm(of_gate, gate.transpose(1, 2)).baddbmm_(of_up, up.transpose(1, 2))
        rows = x.transpose(1, 2)
        return of_x, torch.bmm(rows, of_up), torch.bmm(rows, of_gate), of_down, None


class _ScaledProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, multiplier: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.multiplier = multiplier
        return _product(x, weight, multiplier)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        of_x = _product(gradient, weight.transpose(1, 2), ctx.multiplier)
        return of_x, _product(x.transpose(1, 2), gradient, ctx.multiplier), None


def _product(a: Tensor, b: Tensor, multiplier: float) -> Tensor:
    return a.new_empty(*a.shape[:2], b.shape[2]).baddbmm_(a, b, beta=0, alpha=multiplier)


def wide(x: Tensor) -> Tensor:
    """bfloat16 as float32: for scores and losses, where rounding would decide."""
    return x.float() if x.dtype is torch.bfloat16 else x
