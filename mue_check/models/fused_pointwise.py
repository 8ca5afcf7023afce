"""The pointwise kernels as operations of torch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mue_check.models.kernels.operation import operation
from mue_check.models.kernels.tiles import norm_programs

MOST_COLUMNS = 4096
"""Of a token, all of which one program of the norm, or of the cross-entropy, holds."""


def _keep_scores(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, output[1])


def _of_cross_entropy(ctx: Any, of_mean: Tensor | None, _: None) -> tuple[Tensor | None, None]:
    return None if of_mean is None else cross_entropy_backward(of_mean, *ctx.saved_tensors), None


def _float32(like: Tensor, axes: int) -> Tensor:
    return like.new_empty(like.shape[:axes], dtype=torch.float32)


_add_norm_backward = operation(
    "add_norm_backward(Tensor? of_total, Tensor of_out, Tensor total, Tensor gain, float eps) -> (Tensor, Tensor)",
    module="pointwise",
    fake=lambda of_total, of_out, total, gain, eps: (
        torch.empty_like(total),
        gain.new_empty(len(total), norm_programs(total.shape[1]), total.shape[2]),
    ),
)
_add_norm = operation(
    "add_norm(Tensor x, Tensor branch, Tensor gain, float eps) -> (Tensor, Tensor)",
    module="pointwise",
    fake=lambda x, branch, gain, eps: (torch.empty_like(x), torch.empty_like(x)),
)
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


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, gain_RPD: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        gain_RD = gain_RPD[:, 0]
        total, out = _add_norm(x, branch, gain_RD, eps)
        ctx.set_materialize_grads(False)
        ctx.eps, ctx.period = eps, branch.shape[1]
        ctx.save_for_backward(total, gain_RD)
        return total, out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor | None, of_out: Tensor | None) -> tuple[Tensor | None, ...]:
        of_x, of_gain = of_total, None
        if of_out is not None:
            of_x, of_gain = _add_norm_backward(of_total, of_out, *ctx.saved_tensors, ctx.eps)
        of_branch = of_x
        if of_x is not None and ctx.period != of_x.shape[1]:
            of_branch = of_x.view(len(of_x), -1, ctx.period, of_x.shape[2]).sum(1)
        return of_x, of_branch, of_gain, None


def add_norm(x_RMD: Tensor, branch_RMD: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + branch, and its norm with a gain [R, D], or one of ``for_programs``."""
    total, out = _AddNorm.apply(x_RMD, branch_RMD, gain_for_programs(gain, x_RMD), eps)  # type: ignore[no-untyped-call]
    return total, out


def gain_for_programs(gain: Tensor, x_RMD: Tensor) -> Tensor:
    """One gain [R, D] in the form of ``for_programs``, unless it has it already."""
    return for_programs([gain], x_RMD)[0] if gain.dim() == 2 else gain


def for_programs(gains_RD: Sequence[Tensor], x_RMD: Tensor) -> Sequence[Tensor]:
    """Each gain once for each program of the norm of x, [R, P, D], without a copy.

    Each program computes a part of the gradient, and the parts of all gains are summed in one launch.
    """
    gains_GRD = torch.stack(tuple(gains_RD)) if len(gains_RD) > 1 else gains_RD[0].unsqueeze(0)
    return gains_GRD.unsqueeze(2).expand(-1, -1, norm_programs(x_RMD.shape[1]), -1).unbind(0)
