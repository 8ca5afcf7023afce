"""The choice of experts by sigmoid score as one operation of torch."""

from typing import Any

import torch
from torch import Tensor

from mue_check.models.kernels import uses_kernel
from mue_check.models.kernels.operation import operation
from mue_check.routing.choice import Mixture, TokenChoice

MOST_SCORES = 4096
"""A program holds all scores of a group."""


def choose_by_sigmoid(logits_RME: Tensor, experts: Mixture, bias_RE: Tensor | None, normal: bool) -> TokenChoice | None:
    """``routing.choice.select`` of sigmoid scores by a kernel, ``normal``ized by group; None where it is not used."""
    fits = logits_RME.dtype is torch.float32 and experts.total // experts.groups <= MOST_SCORES
    if not (fits and uses_kernel("router", logits_RME)):
        return None
    weights, indices, _ = top_sigmoid(logits_RME, bias_RE, experts.activated, experts.groups, normal)
    return TokenChoice(weights, indices)


def _fake(logits: Tensor, bias: Tensor | None, active: int, groups: int, normal: bool) -> tuple[Tensor, Tensor, Tensor]:
    weights, sums = (logits.new_empty(*logits.shape[:2], size) for size in (active, groups))
    return weights, torch.empty_like(weights, dtype=torch.int64), sums


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.total, ctx.normal = inputs[0].shape[-1], inputs[4]
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output)


def _differentiate(ctx: Any, gradient: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    none = (None,) * 4
    if gradient is None:
        return None, *none
    return top_sigmoid_backward(gradient, *ctx.saved_tensors, ctx.total, ctx.normal), *none


top_sigmoid_backward = operation(
    "top_sigmoid_backward(Tensor gradient, Tensor weights, Tensor indices, Tensor sums, int total, bool normal)"
    " -> Tensor",
    module="select",
    fake=lambda gradient, weights, indices, sums, total, normal: weights.new_empty(*weights.shape[:2], total),
)
top_sigmoid = operation(
    "top_sigmoid(Tensor logits, Tensor? bias, int active, int groups, bool normal) -> (Tensor, Tensor, Tensor)",
    module="select",
    fake=_fake,
    keep=_keep,
    differentiate=_differentiate,
)
