"""The pointwise kernels as operations of torch: for autograd, fake tensors, torch.compile and capture."""

from typing import Any

import torch
from torch import Tensor

MOST_COLUMNS = 4096
"""A program of the norm holds whole tokens."""


@torch.library.custom_op("mue_check::add_norm", mutates_args=())
def add_norm(x: Tensor, branch: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + branch, and its norm with a gain."""
    from mue_check.models.kernels import pointwise

    return pointwise.add_norm(x.contiguous(), branch.contiguous(), gain.contiguous(), eps)


@torch.library.custom_op("mue_check::add_norm_backward", mutates_args=())
def _add_norm_backward(
    of_total: Tensor | None, of_out: Tensor, total: Tensor, gain: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    from mue_check.models.kernels import pointwise

    of_total = None if of_total is None else of_total.contiguous()
    return pointwise.add_norm_backward(of_total, of_out.contiguous(), total, gain.contiguous(), eps)


@torch.library.custom_op("mue_check::swiglu", mutates_args=())
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    from mue_check.models.kernels import pointwise

    return pointwise.swiglu(gate.contiguous(), up.contiguous())


@torch.library.custom_op("mue_check::swiglu_backward", mutates_args=())
def _swiglu_backward(of_out: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    from mue_check.models.kernels import pointwise

    return pointwise.swiglu_backward(of_out.contiguous(), gate.contiguous(), up.contiguous())


@add_norm.register_fake
def _(x: Tensor, branch: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


@_add_norm_backward.register_fake
def _(of_total: Tensor | None, of_out: Tensor, total: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(total), torch.empty_like(gain)


@swiglu.register_fake
def _(gate: Tensor, up: Tensor) -> Tensor:
    return torch.empty_like(gate)


@_swiglu_backward.register_fake
def _(of_out: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(gate), torch.empty_like(up)


def _keep_norm(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.eps = inputs[3]
    ctx.save_for_backward(output[0], inputs[2])


def _of_norm(ctx: Any, of_total: Tensor | None, of_out: Tensor | None) -> tuple[Tensor | None, ...]:
    total, gain = ctx.saved_tensors
    if of_out is None:
        return of_total, of_total, torch.zeros_like(gain), None
    of_x, of_gain = _add_norm_backward(of_total, of_out, total, gain, ctx.eps)
    return of_x, of_x, of_gain, None


def _keep_swiglu(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _of_swiglu(ctx: Any, of_out: Tensor) -> tuple[Tensor, Tensor]:
    of_gate, of_up = _swiglu_backward(of_out, *ctx.saved_tensors)
    return of_gate, of_up


add_norm.register_autograd(_of_norm, setup_context=_keep_norm)
swiglu.register_autograd(_of_swiglu, setup_context=_keep_swiglu)
