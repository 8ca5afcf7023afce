"""The choice of experts by sigmoid score as one operation of torch."""

from typing import Any

import torch
from torch import Tensor

from mue_check.models.kernels import uses_kernel
from mue_check.models.kernels.operation import operation
from mue_check.routing.choice import Mixture, TokenChoice

MOST_SCORES = 4096
"""A program holds all scores of a group."""


def choose_by_sigmoid(logits_RME: Tensor, experts: Mixture, bias_RE: Tensor | None) -> TokenChoice | None:
    """``routing.choice.select`` of sigmoid scores by a kernel; None where it is not used."""
    fits = logits_RME.dtype is torch.float32 and experts.total // experts.groups <= MOST_SCORES
    if not (fits and uses_kernel("router", logits_RME)):
        return None
    scores, indices = top_sigmoid(logits_RME, bias_RE, experts.activated, experts.groups)
    return TokenChoice(scores, indices)


def _top_sigmoid(logits: Tensor, bias: Tensor | None, active: int, groups: int) -> tuple[Tensor, Tensor]:
    from mue_check.models.kernels import select

    bias = None if bias is None else bias.contiguous()
    return select.top_sigmoid(logits.contiguous(), bias, active, groups)


def _top_sigmoid_backward(gradient: Tensor, scores: Tensor, indices: Tensor, total: int, groups: int) -> Tensor:
    from mue_check.models.kernels import select

    return select.top_sigmoid_backward(gradient.contiguous(), scores, indices, total, groups)


def _fake(logits: Tensor, bias: Tensor | None, active: int, groups: int) -> tuple[Tensor, Tensor]:
    scores = logits.new_empty(*logits.shape[:2], active)
    return scores, torch.empty_like(scores, dtype=torch.int64)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor | None, int, int], output: tuple[Tensor, Tensor]) -> None:
    ctx.total, ctx.groups = inputs[0].shape[-1], inputs[3]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*output)


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor, None, None, None]:
    return top_sigmoid_backward(gradient, *ctx.saved_tensors, ctx.total, ctx.groups), None, None, None


top_sigmoid_backward = operation(
    _top_sigmoid_backward,
    fake=lambda gradient, scores, indices, total, groups: scores.new_empty(*scores.shape[:2], total),
)
top_sigmoid = operation(_top_sigmoid, fake=_fake, keep=_keep, differentiate=_differentiate)
