"""The attention kernel as an operation of torch."""

from typing import Any

import torch
from torch import Tensor

from mue_check.models.kernels.operation import operation

LONGEST, WIDEST = 128, 64
"""Context and width of a head up to which a program holds all scores."""


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
