"""The attention kernel as an operation of torch."""

from typing import Any

from torch import Tensor, empty_like

from mue_check.models.kernels.operation import operation
from mue_check.models.kernels.tiles import multiplies_in_full

LONGEST, WIDEST, WIDEST_IN_FULL = 64, 32, 16
"""Context and width of a head up to which a program holds all that it needs; without tensor cores it holds less."""


def fits(qkv: Tensor) -> bool:
    """Whether the kernel can take [N, T, 3, H, K]."""
    widest = WIDEST_IN_FULL if multiplies_in_full(qkv) else WIDEST
    return qkv.shape[1] <= LONGEST and qkv.shape[4] <= widest


def _keep(ctx: Any, inputs: tuple[Tensor, float, bool], output: Tensor) -> None:
    qkv, ctx.scale, ctx.causal = inputs
    ctx.save_for_backward(qkv)


attention_backward = operation(
    "attention_backward(Tensor of_out, Tensor qkv, float scale, bool causal) -> Tensor",
    module="attention",
    fake=lambda of_out, qkv, scale, causal: empty_like(qkv),
)
attention = operation(
    "attention(Tensor qkv, float scale, bool causal) -> Tensor",
    module="attention",
    fake=lambda qkv, scale, causal: qkv.new_empty(*qkv.shape[:2], qkv.shape[3] * qkv.shape[4]),
    keep=_keep,
    differentiate=lambda ctx, of_out: (
        attention_backward(of_out, *ctx.saved_tensors, ctx.scale, ctx.causal), None, None
    ),
)  # fmt: skip
"""softmax(scale q k^T) v: [N, T, H*K] of [N, T, 3, H, K]."""
