"""A grouped product of the routed tokens, made of batched products over blocks of one size: any precision and device.

Every expert has one block, and an expert whose tokens do not fit gets more. The total number of blocks follows from
shapes alone, so the host reads nothing and no token is dropped.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mue_check.models.dispatch import collect, side_by_side, spread, swiglu
from mue_check.models.pointwise import apply
from mue_check.routing.choice import TokenChoice

SMALLEST = 8
"""Rows of the smallest block: a product with fewer is no faster."""


@dataclass(frozen=True)
class Blocks:
    """Where each assignment is: first one block for each of G = R*E groups (an expert of a run), then extra blocks.

    Each block has ``size`` rows. ``group_X`` are the groups of the extra blocks. ``token_S`` is the token in each row;
    an empty row holds a token of the same run, so that a NaN run does not affect others. ``row_NK`` is the row of each
    token's k-th expert.
    """

    size: int
    group_X: Tensor
    token_S: Tensor
    row_NK: Tensor


def blocked_experts(
    x_RMD: Tensor, up_RDEF: Tensor, gate_RDEF: Tensor, down_REFD: Tensor, routing: TokenChoice
) -> Tensor:
    """Only the routed tokens, one batched product over all blocks: [R, M, D]. Dropless."""
    width = x_RMD.shape[2]
    blocks = make_blocks(routing.indices, up_RDEF.shape[2])
    weight_S = routing.weights.new_zeros(len(blocks.token_S)).scatter(
        0, blocks.row_NK.flatten(), routing.weights.flatten()
    )
    rows = spread(x_RMD.reshape(-1, width), blocks.token_S, blocks.row_NK).view(-1, blocks.size, width)
    h = swiglu(apply(_Product, rows, side_by_side(gate_RDEF, up_RDEF), blocks.group_X))
    out_BSD = apply(_Product, h * weight_S.view(-1, blocks.size, 1), down_REFD.flatten(0, 1), blocks.group_X)
    return collect(out_BSD.flatten(0, 1), blocks.token_S, blocks.row_NK).view(x_RMD.shape)


def size_of_blocks(tokens: int, active: int, total: int) -> int:
    """About half the mean load of an expert, so that two thirds of all rows are used."""
    return max(SMALLEST, (1 << (tokens * active // total).bit_length()) // 4)


def make_blocks(indices_RMK: Tensor, total: int) -> Blocks:
    """Sort the assignments into blocks."""
    runs, tokens, active = indices_RMK.shape
    groups, device = runs * total, indices_RMK.device
    size = size_of_blocks(tokens, active, total)
    group_N = (indices_RMK + torch.arange(runs, device=device).view(-1, 1, 1) * total).flatten()
    order_N = torch.argsort(group_N, stable=True)
    sorted_N = group_N[order_N]
    start_G1 = torch.searchsorted(sorted_N, torch.arange(groups + 1, device=device))
    further_G = (start_G1.diff() - 1).clamp(min=0) // size
    end_G = further_G.cumsum(0)
    place_N = torch.arange(len(order_N), device=device) - start_G1[sorted_N]
    block_N = place_N // size
    # the first block of a group has the group's number; extra blocks follow
    later_N = groups + (end_G - further_G)[sorted_N] + block_N - 1
    row_N = torch.where(block_N == 0, sorted_N, later_N) * size + place_N % size
    # upper bound of the extra blocks; unused ones belong to the last group and are empty
    others = torch.arange(len(order_N) // size, device=device)
    group_X = torch.searchsorted(end_G, others, right=True).clamp(max=groups - 1)
    owner = torch.cat([torch.arange(groups, device=device), group_X])
    token_S = (owner // total * tokens).unsqueeze(-1).expand(-1, size).flatten()
    token_S = token_S.scatter(0, row_N, order_N // active)
    row_NK = torch.empty_like(order_N).scatter(0, order_N, row_N).view(-1, active)
    return Blocks(size, group_X, token_S, row_NK)


class _Product(torch.autograd.Function):
    """[B, size, F] = rows [B, size, D] @ weights [G, D, F] of each block's group."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, group_X: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weights, group_X)
        return _by_block(rows, weights, group_X)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, weights, group_X = ctx.saved_tensors
        first = len(weights)
        of_weights = torch.bmm(rows[:first].transpose(1, 2), gradient[:first])
        others = torch.bmm(rows[first:].transpose(1, 2), gradient[first:])
        # on CUDA index_put sorts first, index_add does not: the sum of a group's blocks has one order
        of_weights.index_put_((group_X,), others, accumulate=True)
        return _by_block(gradient, weights.transpose(1, 2), group_X), of_weights, None


def _by_block(rows: Tensor, weights: Tensor, group_X: Tensor) -> Tensor:
    first = len(weights)
    out = rows.new_empty(*rows.shape[:2], weights.shape[2])
    torch.bmm(rows[:first], weights, out=out[:first])
    torch.bmm(rows[first:], weights.index_select(0, group_X), out=out[first:])
    return out
