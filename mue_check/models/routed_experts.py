"""The expert product by Triton kernels, as operations of torch: for autograd, fake tensors, torch.compile and capture.

Triton itself is imported when a kernel is first launched.
"""

from typing import Any

import torch
from torch import Tensor

from mue_check.routing.choice import TokenChoice

Both = tuple[Tensor, Tensor, Tensor, Tensor]
Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def routed_experts(
    x_RMD: Tensor, up_RDEF: Tensor, gate_RDEF: Tensor, down_REFD: Tensor, routing: TokenChoice
) -> Tensor:
    """Only the routed tokens, in a few kernels for all experts of all runs: [R, M, D]. Dropless."""
    out: Tensor = _forward(x_RMD, up_RDEF, gate_RDEF, down_REFD, routing.weights, routing.indices)[0]
    return out


@torch.library.custom_op("mue_check::routed_experts", mutates_args=())
def _forward(x: Tensor, up: Tensor, gate: Tensor, down: Tensor, weights: Tensor, indices: Tensor) -> Both:
    """The product, and how the assignments were sorted, for the backward pass."""
    from mue_check.models.kernels.experts import choose_tiling, forward
    from mue_check.models.kernels.sort import sort_by_expert

    tiling = choose_tiling(x, up, indices.shape[2])
    found = sort_by_expert(indices.contiguous(), up.shape[2], tiling.rows)
    x, up, gate, down, weights = (t.contiguous() for t in (x, up, gate, down, weights))
    out = forward(x, up, gate, down, weights, found, tiling)
    return out, found.order_S, found.end_REC, found.tiles_3T


@torch.library.custom_op("mue_check::routed_experts_backward", mutates_args=())
def _backward(
    gradient: Tensor,
    x: Tensor,
    up: Tensor,
    gate: Tensor,
    down: Tensor,
    weights: Tensor,
    order_S: Tensor,
    end_REC: Tensor,
    tiles_3T: Tensor,
) -> Gradients:
    from mue_check.models.kernels.experts import backward, choose_tiling
    from mue_check.models.kernels.sort import Sorted

    tiling = choose_tiling(x, up, weights.shape[2])
    gradient, x, up, gate, down, weights = (t.contiguous() for t in (gradient, x, up, gate, down, weights))
    return backward(gradient, x, up, gate, down, weights, Sorted(order_S, end_REC, tiles_3T), tiling)


@_forward.register_fake
def _(x: Tensor, up: Tensor, gate: Tensor, down: Tensor, weights: Tensor, indices: Tensor) -> Both:
    integers = (indices.new_empty(size, dtype=torch.int32) for size in _sizes_of_order(indices, up))
    order_S, end_REC, tiles_3T = integers
    return torch.empty_like(x), order_S, end_REC, tiles_3T


@_backward.register_fake
def _(gradient: Tensor, *given: Tensor) -> Gradients:
    x, up, gate, down, weights = (torch.empty_like(t) for t in given[:5])
    return x, up, gate, down, weights


def _sizes_of_order(indices: Tensor, up: Tensor) -> list[tuple[int, ...]]:
    from mue_check.models.kernels.experts import rows_of_tile
    from mue_check.models.kernels.sort import CHUNK, tiles_of_run

    (runs, tokens, active), (total, hidden) = indices.shape, up.shape[2:]
    tiles = tiles_of_run(tokens, active, total, rows_of_tile(tokens, active, total, hidden, up.dtype))
    return [(indices.numel(),), (runs, total, -(-tokens * active // CHUNK)), (3, runs * tiles)]


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Both) -> None:
    ctx.save_for_backward(*inputs[:5], *output[1:])


def _differentiate(ctx: Any, gradient: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    return *_backward(gradient, *ctx.saved_tensors), None


_forward.register_autograd(_differentiate, setup_context=_keep)
