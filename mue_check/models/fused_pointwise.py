"""The pointwise kernels as operations of torch."""

from typing import Any

import torch
from torch import Tensor

from mue_check.models.kernels.operation import operation

MOST_COLUMNS = 4096
"""A program of the norm holds whole tokens."""


def _add_norm(x: Tensor, branch: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    from mue_check.models.kernels import pointwise

    return pointwise.add_norm(x.contiguous(), branch.contiguous(), gain.contiguous(), eps)


def _add_norm_backward(
    of_total: Tensor | None, of_out: Tensor, total: Tensor, gain: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    from mue_check.models.kernels import pointwise

    of_total = None if of_total is None else of_total.contiguous()
    return pointwise.add_norm_backward(of_total, of_out.contiguous(), total, gain.contiguous(), eps)


def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    from mue_check.models.kernels import pointwise

    return pointwise.swiglu(gate.contiguous(), up.contiguous())


def _swiglu_backward(of_out: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    from mue_check.models.kernels import pointwise

    return pointwise.swiglu_backward(of_out.contiguous(), gate.contiguous(), up.contiguous())


def _keep_norm(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.eps = inputs[3]
    ctx.save_for_backward(output[0], inputs[2])


def _of_norm(ctx: Any, of_total: Tensor | None, of_out: Tensor | None) -> tuple[Tensor | None, ...]:
    total, gain = ctx.saved_tensors
    if of_out is None:
        return of_total, of_total, torch.zeros_like(gain), None
    of_x, of_gain = add_norm_backward(of_total, of_out, total, gain, ctx.eps)
    return of_x, of_x, of_gain, None


add_norm_backward = operation(
    _add_norm_backward,
    fake=lambda of_total, of_out, total, gain, eps: (torch.empty_like(total), torch.empty_like(gain)),
)
add_norm = operation(
    _add_norm,
    fake=lambda x, branch, gain, eps: (torch.empty_like(x), torch.empty_like(x)),
    keep=_keep_norm,
    differentiate=_of_norm,
)
"""x + branch, and its norm with a gain."""
swiglu_backward = operation(
    _swiglu_backward, fake=lambda of_out, gate, up: (torch.empty_like(gate), torch.empty_like(up))
)
swiglu = operation(
    _swiglu,
    fake=lambda gate, up: torch.empty_like(gate),
    keep=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    differentiate=lambda ctx, of_out: swiglu_backward(of_out, *ctx.saved_tensors),
)
"""silu(gate) * up."""
