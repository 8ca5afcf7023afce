"""The attention kernel as an operation of torch."""

from typing import Any

import torch
from torch import Tensor

from mue_check.models.kernels.operation import operation
from mue_check.models.kernels.tiles import multiplies_in_full

LONGEST, WIDEST, WIDEST_IN_FULL = 64, 32, 16
"""Context and width of a head up to which a program holds all that it needs; without tensor cores it holds less."""


def fits(qkv: Tensor) -> bool:
    """Whether the kernel can take [N, T, 3, H, K]."""
    widest = WIDEST_IN_FULL if multiplies_in_full(qkv) else WIDEST
    return qkv.shape[1] <= LONGEST and qkv.shape[4] <= widest


def _attention(qkv: Tensor, scale: float, causal: bool) -> Tensor:
    from mue_check.models.kernels import attention as kernels

    return kernels.attention(qkv.contiguous(), scale, causal)


def _attention_backward(of_out: Tensor, qkv: Tensor, scale: float, causal: bool) -> Tensor:
    from mue_check.models.kernels import attention as kernels

    return kernels.attention_backward(of_out.contiguous(), qkv.contiguous(), scale, causal)


def _keep(ctx: Any, inputs: tuple[Tensor, float, bool], output: Tensor) -> None:
    qkv, ctx.scale, ctx.causal = inputs
    ctx.save_for_backward(qkv)


def _differentiate(ctx: Any, of_out: Tensor) -> tuple[Tensor, None, None]:
    return attention_backward(of_out, *ctx.saved_tensors, ctx.scale, ctx.causal), None, None


attention_backward = operation(_attention_backward, fake=lambda of_out, qkv, scale, causal: torch.empty_like(qkv))
attention = operation(
    _attention,
    fake=lambda qkv, scale, causal: qkv.new_empty(*qkv.shape[:2], qkv.shape[3] * qkv.shape[4]),
    keep=_keep,
    differentiate=_differentiate,
)
"""softmax(scale q k^T) v: [N, T, H*K] of [N, T, 3, H, K]."""
