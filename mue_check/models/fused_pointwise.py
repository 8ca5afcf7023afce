"""The pointwise kernels as operations of torch."""

from typing import Any

import torch
from torch import Tensor

from mue_check.models.kernels.operation import operation

MOST_COLUMNS = 4096
"""Of a token, all of which one program of the norm, or of the cross-entropy, holds."""


def _keep_norm(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.eps, ctx.period = inputs[3], inputs[1].shape[1]
    ctx.save_for_backward(output[0], inputs[2])


def _of_norm(ctx: Any, of_total: Tensor | None, of_out: Tensor | None) -> tuple[Tensor | None, ...]:
    total, gain = ctx.saved_tensors
    if of_out is None:
        of_x, of_gain = of_total, torch.zeros_like(gain)
    else:
        of_x, of_gain = add_norm_backward(of_total, of_out, total, gain, ctx.eps)
    of_branch = of_x
    if of_x is not None and ctx.period != of_x.shape[1]:
        of_branch = of_x.view(len(of_x), -1, ctx.period, of_x.shape[2]).sum(1)
    return of_x, of_branch, of_gain, None


def _keep_scores(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, output[1])


def _of_cross_entropy(ctx: Any, of_mean: Tensor | None, _: None) -> tuple[Tensor | None, None]:
    return None if of_mean is None else cross_entropy_backward(of_mean, *ctx.saved_tensors), None


def _float32(like: Tensor, axes: int) -> Tensor:
    return like.new_empty(like.shape[:axes], dtype=torch.float32)


add_norm_backward = operation(
    "add_norm_backward(Tensor? of_total, Tensor of_out, Tensor total, Tensor gain, float eps) -> (Tensor, Tensor)",
    module="pointwise",
    fake=lambda of_total, of_out, total, gain, eps: (torch.empty_like(total), torch.empty_like(gain)),
)
add_norm = operation(
    "add_norm(Tensor x, Tensor branch, Tensor gain, float eps) -> (Tensor, Tensor)",
    module="pointwise",
    fake=lambda x, branch, gain, eps: (torch.empty_like(x), torch.empty_like(x)),
    keep=_keep_norm,
    differentiate=_of_norm,
)
"""x + branch, and its norm with a gain."""
swiglu_backward = operation(
    "swiglu_backward(Tensor of_out, Tensor gate, Tensor up) -> (Tensor, Tensor)",
    module="pointwise",
    fake=lambda of_out, gate, up: (torch.empty_like(gate), torch.empty_like(up)),
)
swiglu = operation(
    "swiglu(Tensor gate, Tensor up) -> Tensor",
    module="pointwise",
    fake=lambda gate, up: torch.empty_like(gate),
    keep=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    differentiate=lambda ctx, of_out: swiglu_backward(of_out, *ctx.saved_tensors),
)
"""silu(gate) * up."""
cross_entropy_backward = operation(
    "cross_entropy_backward(Tensor of_mean, Tensor logits, Tensor tokens, Tensor normalizer) -> Tensor",
    module="pointwise",
    fake=lambda of_mean, logits, tokens, normalizer: torch.empty_like(logits),
)
cross_entropy = operation(
    "cross_entropy(Tensor logits, Tensor tokens) -> (Tensor, Tensor)",
    module="pointwise",
    fake=lambda logits, tokens: (_float32(logits, 1), _float32(logits, 2)),
    keep=_keep_scores,
    differentiate=_of_cross_entropy,
)
"""Of logits [R, M, V] and tokens [R, B, T+1]: the mean of each run [R], and each token's normalizer [R, M]."""
