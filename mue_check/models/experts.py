"""Expert products on the run axis, which all give the same result, and the choice between them by shape.

Up and gate are stored as [R, D, E, F] and down as [R, E, F, D], so that all experts of a run are one
wide matrix product.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mue_check.models.blocked_experts import blocked_experts
from mue_check.models.cards import Card, card_of
from mue_check.models.dispatch import collect, side_by_side, spread, swiglu
from mue_check.models.kernels import uses_kernel
from mue_check.models.routed_experts import routed_experts
from mue_check.routing.choice import Choice, DenseChoice, ExpertChoice, TokenChoice, combine, scaled_weights


def all_experts(x_RMD: Tensor, up_RDEF: Tensor, gate_RDEF: Tensor, down_REFD: Tensor, routing: Choice) -> Tensor:
    """Every expert on every token, with weight 0 if not routed: [R, M, D]. Exact, and fastest at small sizes."""
    runs, tokens, _ = x_RMD.shape
    total, width = up_RDEF.shape[2:]
    h = F.silu(torch.bmm(x_RMD, gate_RDEF.flatten(2))) * torch.bmm(x_RMD, up_RDEF.flatten(2))
    h = h.view(runs, tokens, total, width) * combine(routing, tokens, total).unsqueeze(-1)
    return torch.bmm(h.flatten(2), down_REFD.flatten(1, 2))


def grouped_experts(
    x_RMD: Tensor, up_RDEF: Tensor, gate_RDEF: Tensor, down_REFD: Tensor, routing: TokenChoice
) -> Tensor:
    """Only the routed tokens, sorted by expert, with torch's grouped product over R*E groups: [R, M, D]. Dropless."""
    runs, _, width = x_RMD.shape
    total, active = up_RDEF.shape[2], routing.indices.shape[-1]
    run = torch.arange(runs, device=x_RMD.device).view(-1, 1, 1)
    group = (routing.indices + run * total).flatten()
    order = torch.argsort(group, stable=True)
    ends = torch.searchsorted(group[order], torch.arange(1, runs * total + 1, device=group.device)).to(torch.int32)

    token = order // active
    row = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device)).view(-1, active)

    rows = spread(x_RMD.reshape(-1, width), token, row)
    h = swiglu(F.grouped_mm(rows, side_by_side(gate_RDEF, up_RDEF), offs=ends))
    h = h * routing.weights.flatten().index_select(0, order).unsqueeze(-1)
    out = F.grouped_mm(h, down_REFD.flatten(0, 1), offs=ends)
    return collect(out, token, row).view(x_RMD.shape)


MOST_GROUPS = 1023
"""Of one grouped product on CUDA: torch refuses more."""


def supports_grouped(rows: Tensor, weights: Tensor) -> bool:
    """Whether torch has a grouped kernel: fp32 and bf16 on CPU, bf16 on CUDA from Hopper on, rows of 16 bytes."""
    if any(operand.shape[-1] * operand.element_size() % 16 for operand in (rows, weights)):
        return False
    if rows.is_cuda:
        if weights.shape[0] * weights.shape[2] > MOST_GROUPS:
            return False
        return rows.dtype is torch.bfloat16 and torch.cuda.get_device_capability(rows.device) >= (9, 0)
    return rows.dtype in (torch.float32, torch.bfloat16)


def taken_tokens(x_RMD: Tensor, up_RDEF: Tensor, gate_RDEF: Tensor, down_REFD: Tensor, routing: ExpertChoice) -> Tensor:
    """Each expert on the tokens it takes, one batched product over (R, E): [R, M, D]."""
    run = torch.arange(len(x_RMD), device=x_RMD.device).view(-1, 1, 1)
    rows_RECD = x_RMD[run, routing.indices]
    h = F.silu(rows_RECD @ gate_RDEF.transpose(1, 2)) * (rows_RECD @ up_RDEF.transpose(1, 2))
    out_RECD = (h * routing.weights.unsqueeze(-1)) @ down_REFD
    # index_put, not index_add: on CUDA it sorts first, so that the sum over a token's experts has one order
    return torch.zeros_like(x_RMD).index_put((run, routing.indices), out_RECD, accumulate=True)


def expert_product(
    x_RMD: Tensor,
    up_RDEF: Tensor,
    gate_RDEF: Tensor,
    down_REFD: Tensor,
    routing: Choice,
    multiplier: float = 1.0,
) -> Tensor:
    """multiplier * sum_k weight_k * down_k(silu(gate_k x) * up_k x), [R, M, D], by the fastest product for the shape.

    The multiplier is applied to the weights.
    """
    if isinstance(routing, TokenChoice):
        product = choose_product(x_RMD, up_RDEF, routing)
        if product is routed_experts:  # which takes weights in float32
            return routed_experts(x_RMD, up_RDEF, gate_RDEF, down_REFD, routing, multiplier)
        return product(x_RMD, up_RDEF, gate_RDEF, down_REFD, _rounded(scaled_weights(routing, multiplier), x_RMD))
    if isinstance(routing, ExpertChoice):
        scaled = _rounded(scaled_weights(routing, multiplier), x_RMD)
        return taken_tokens(x_RMD, up_RDEF, gate_RDEF, down_REFD, scaled)
    return all_experts(x_RMD, up_RDEF, gate_RDEF, down_REFD, _rounded(scaled_weights(routing, multiplier), x_RMD))


C = TypeVar("C", TokenChoice, ExpertChoice, DenseChoice)


def _rounded(routing: C, x: Tensor) -> C:
    """With weights in the precision of x."""
    return routing if routing.weights.dtype is x.dtype else replace(routing, weights=routing.weights.to(x.dtype))


Product = Callable[[Tensor, Tensor, Tensor, Tensor, TokenChoice], Tensor]
FEW_NUMBERS, FEW_ROWS = 2**15, 16
"""On a CPU: up to that many hidden activations of a run one plain product is fastest; up to that many tokens of an
expert blocks are faster than torch's grouped product, which computes one expert after the other
(bench/expert_product.py)."""


def choose_product(x_RMD: Tensor, up_RDEF: Tensor, routing: TokenChoice) -> Product:
    """By shape and device, as measured by bench/expert_product.py on one core and on an H100 (reports/bench)."""
    tokens, active = routing.indices.shape[1:]
    total, hidden = up_RDEF.shape[2:]
    card = card_of(x_RMD.device)
    if x_RMD.is_cuda and uses_kernel("experts", x_RMD, fastest=kernels_pay(card, total, active, hidden)):
        return routed_experts
    if total < 2 * active:
        return all_experts
    grouped = supports_grouped(x_RMD, up_RDEF)
    if x_RMD.is_cuda:
        # a routed product has less to multiply, but at half the speed, and it moves every token to its experts and back
        if total * hidden <= active * (2 * hidden + card.moving):
            return all_experts
        return grouped_experts if grouped else blocked_experts
    if tokens * total * hidden <= FEW_NUMBERS:
        return all_experts
    return grouped_experts if grouped and tokens * active > FEW_ROWS * total else blocked_experts


def kernels_pay(card: Card, total: int, active: int, hidden: int) -> bool:
    """Whether the Triton kernels are faster than torch's operations."""
    return total * hidden >= active * (hidden + card.moving_inside)
