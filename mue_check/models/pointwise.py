"""Pointwise operations. The norm has its own backward pass, because autograd's takes twice the time."""

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
    """The residual stream after a branch, and its norm."""
    if uses_kernel("pointwise", x_RMD) and x_RMD.shape[-1] <= fused_pointwise.MOST_COLUMNS:
        total, out = fused_pointwise.add_norm(x_RMD, branch_RMD, gain_RD, EPS)
        return total, out
    total = x_RMD + branch_RMD
    return total, rms_norm(total, gain_RD)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (arXiv 2002.05202)."""
    if uses_kernel("pointwise", gate):
        out: Tensor = fused_pointwise.swiglu(gate, up)
        return out
    return F.silu(gate) * up


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
    """x @ weight * multiplier. A GPU is bound by memory: there, the smaller weight takes the multiplier."""
    if x_RMD.is_cuda:
        return torch.bmm(x_RMD, scaled(weight_RDF, multiplier))
    return scaled(torch.bmm(x_RMD, weight_RDF), multiplier)


def wide(x: Tensor) -> Tensor:
    """bfloat16 as float32: for scores and losses, where rounding would decide."""
    return x.float() if x.dtype is torch.bfloat16 else x
