"""The expert product by Triton kernels, as operations of torch.

Triton itself is imported when a kernel is first launched.
"""

from typing import Any

import torch
from torch import Tensor

from mue_check.models.cards import card_of
from mue_check.models.kernels.operation import operation
from mue_check.routing.choice import TokenChoice

Both = tuple[Tensor, Tensor, Tensor, Tensor]
Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def routed_experts(
    x_RMD: Tensor,
    up_RDEF: Tensor,
    gate_RDEF: Tensor,
    down_REFD: Tensor,
    routing: TokenChoice,
    multiplier: float = 1.0,
) -> Tensor:
    """Only the routed tokens, in a few kernels for all experts of all runs: [R, M, D]. Dropless."""
    out: Tensor = forward(x_RMD, up_RDEF, gate_RDEF, down_REFD, routing.weights, routing.indices, multiplier)[0]
    return out


def _fake(
    x: Tensor, up: Tensor, gate: Tensor, down: Tensor, weights: Tensor, indices: Tensor, multiplier: float
) -> Both:
    from mue_check.models.kernels.experts import rows_of_tile
    from mue_check.models.kernels.sort import CHUNK, tiles_of_run

    (runs, tokens, active), (total, hidden) = indices.shape, up.shape[2:]
    tiles = tiles_of_run(
        tokens, active, total, rows_of_tile(card_of(up.device), tokens, active, total, hidden, up.dtype)
    )
    sizes = ((indices.numel(),), (runs * total, -(-tokens * active // CHUNK)), (3, runs * tiles))
    order_S, end_GC, tiles_3T = (indices.new_empty(size, dtype=torch.int32) for size in sizes)
    return torch.empty_like(x), order_S, end_GC, tiles_3T


def _fake_backward(gradient: Tensor, *given: Any) -> Gradients:
    x, up, gate, down, weights = (torch.empty_like(t) for t in given[:5])
    return x, up, gate, down, weights


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Both) -> None:
    ctx.multiplier = inputs[6]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:5], *output[1:])


def _differentiate(ctx: Any, gradient: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * 7
    return *backward(gradient, *ctx.saved_tensors, ctx.multiplier), None, None


backward = operation(
    "routed_experts_backward(Tensor gradient, Tensor x, Tensor up, Tensor gate, Tensor down, Tensor weights,"
    " Tensor order_S, Tensor end_GC, Tensor tiles_3T, float multiplier) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    module="experts",
    fake=_fake_backward,
)
forward = operation(
    "routed_experts(Tensor x, Tensor up, Tensor gate, Tensor down, Tensor weights, Tensor indices, float multiplier)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    module="experts",
    fake=_fake,
    keep=_keep,
    differentiate=_differentiate,
)
"""The product, and how the assignments were sorted (``kernels.sort.Sorted``), for the backward pass."""
