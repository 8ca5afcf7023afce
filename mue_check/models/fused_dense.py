"""A dense layer with its residual sum and the next norm, as an operation of torch."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mue_check.models.cards import card_of
from mue_check.models.fused_pointwise import gain_for_programs
from mue_check.models.kernels import uses_kernel
from mue_check.models.kernels.operation import operation
from mue_check.models.kernels.tiles import multiplies_in_full, norm_programs

WIDEST, MOST_HIDDEN = 128, 2
"""Width of tokens that one program can hold whole; and hidden units per width up to which it is not slower than
separate products, by an estimate (reports/bench/README.md)."""


def is_used(x_RMD: Tensor, hidden: int) -> bool:
    """Whether the kernels compute a dense layer of that many hidden units."""
    width = x_RMD.shape[2]
    fits = card_of(x_RMD.device).dense_layers and width <= WIDEST and not multiplies_in_full(x_RMD)
    return fits and uses_kernel("dense", x_RMD, fastest=hidden <= MOST_HIDDEN * width)


def dense_add_norm(
    x_RMD: Tensor, y_RMD: Tensor, weights: tuple[Tensor, Tensor, Tensor], gain: Tensor, multiplier: float, eps: float
) -> tuple[Tensor, Tensor]:
    """x + multiplier * down(silu(gate y) * up y), and its norm with a gain [R, D], or one of ``for_programs``.

    ``weights``: up and gate [R, D, F], and down [R, F, D].
    """
    gain_RPD = gain_for_programs(gain, x_RMD)
    total, out = _Dense.apply(x_RMD, y_RMD, *weights, gain_RPD, multiplier, eps)  # type: ignore[no-untyped-call]
    return total, out


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, up: Tensor, gate: Tensor, down: Tensor, gain_RPD: Tensor, *numbers: float
    ) -> tuple[Tensor, Tensor]:
        total, out = _forward(x, y, up, gate, down, gain_RPD[:, 0], *numbers)
        ctx.set_materialize_grads(False)
        ctx.numbers = numbers
        ctx.save_for_backward(total, y, up, gate, down, gain_RPD[:, 0])
        return total, out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor | None, of_out: Tensor | None) -> tuple[Tensor | None, ...]:
        if of_out is None:
            of_out = torch.zeros_like(ctx.saved_tensors[0])
        return *_backward(of_total, of_out, *ctx.saved_tensors, *ctx.numbers), None, None


def _fake_backward(of_total: Tensor | None, of_out: Tensor, total: Tensor, *given: Any) -> tuple[Tensor, ...]:
    y, up, gate, down, gain = given[:5]
    of_gain = gain.new_empty(len(total), norm_programs(total.shape[1]), total.shape[2])
    return torch.empty_like(total), *(torch.empty_like(t) for t in (y, up, gate, down)), of_gain


_backward = operation(
    "dense_add_norm_backward(Tensor? of_total, Tensor of_out, Tensor total, Tensor y, Tensor up, Tensor gate,"
    " Tensor down, Tensor gain, float multiplier, float eps) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    module="dense",
    fake=_fake_backward,
)
_forward = operation(
    "dense_add_norm(Tensor x, Tensor y, Tensor up, Tensor gate, Tensor down, Tensor gain, float multiplier, float eps)"
    " -> (Tensor, Tensor)",
    module="dense",
    fake=lambda x, *_: (torch.empty_like(x), torch.empty_like(x)),
)
