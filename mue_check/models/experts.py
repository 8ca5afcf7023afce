"""Mixture of experts on the run axis: route, then multiply by the experts, in two ways that agree.

Router: sigmoid gate, top-k per group, weights normalized over all active experts of the token
(arXiv 2605.23893, "global norm"). The route scale R multiplies the routed sum alone.
Up and gate are stored [R, D, E, F] and down [R, E, F, D], so that all experts of a run are one
wide matrix product.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mue_check.spec import Experts


@dataclass(frozen=True)
class Routing:
    """Which experts see a token and with what weight: both [R, M, K]; weights sum to 1 over K."""

    weights: Tensor
    indices: Tensor


def route(logits_RME: Tensor, experts: Experts) -> Routing:
    """Top a/G of each group by sigmoid score, normalized over all a."""
    runs, tokens, total = logits_RME.shape
    per_group = total // experts.groups
    scores = torch.sigmoid(logits_RME).view(runs, tokens, experts.groups, per_group)
    weights, indices = scores.topk(experts.activated // experts.groups, dim=-1)
    first = torch.arange(experts.groups, device=indices.device).view(-1, 1) * per_group
    weights, indices = weights.flatten(-2), (indices + first).flatten(-2)
    return Routing(weights / weights.sum(-1, keepdim=True), indices)


def all_experts(x_RMD: Tensor, up_RDEF: Tensor, gate_RDEF: Tensor, down_REFD: Tensor, routing: Routing) -> Tensor:
    """Every expert on every token, weights 0 where a token is not routed: [R, M, D]. Exact, and quickest when small."""
    runs, tokens, _ = x_RMD.shape
    total, width = up_RDEF.shape[2:]
    h = F.silu(x_RMD @ gate_RDEF.flatten(2)) * (x_RMD @ up_RDEF.flatten(2))
    combine_RME = routing.weights.new_zeros(runs, tokens, total).scatter(-1, routing.indices, routing.weights)
    h = h.view(runs, tokens, total, width) * combine_RME.unsqueeze(-1)
    return h.flatten(2) @ down_REFD.flatten(1, 2)


def grouped_experts(x_RMD: Tensor, up_RDEF: Tensor, gate_RDEF: Tensor, down_REFD: Tensor, routing: Routing) -> Tensor:
    """Only the routed tokens, sorted by expert, one grouped product over R*E groups: [R, M, D]. Dropless."""
    runs, tokens, width = x_RMD.shape
    total, active = up_RDEF.shape[2], routing.indices.shape[-1]
    run = torch.arange(runs, device=x_RMD.device).view(-1, 1, 1)
    group = (routing.indices + run * total).flatten()
    order = torch.argsort(group, stable=True)
    ends = torch.searchsorted(group[order], torch.arange(1, runs * total + 1, device=group.device)).to(torch.int32)

    rows = x_RMD.reshape(-1, width).index_select(0, order // active)
    up = up_RDEF.transpose(1, 2).flatten(0, 1)
    gate = gate_RDEF.transpose(1, 2).flatten(0, 1)
    h = F.silu(grouped_product(rows, gate, ends)) * grouped_product(rows, up, ends)
    h = h * routing.weights.flatten().index_select(0, order).unsqueeze(-1)
    out = grouped_product(h, down_REFD.flatten(0, 1), ends)
    # the inverse permutation, not index_add: the sum over K then has one order, every time
    back = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
    return out.index_select(0, back).view(runs, tokens, active, width).sum(2)


def grouped_product(rows_ND: Tensor, weights_GDF: Tensor, ends_G: Tensor) -> Tensor:
    """rows[ends[g-1]:ends[g]] @ weights[g] for each group g: [N, F]."""
    if supports_grouped(rows_ND, weights_GDF):
        return F.grouped_mm(rows_ND.contiguous(), weights_GDF, offs=ends_G)
    group = torch.searchsorted(ends_G.long(), torch.arange(len(rows_ND), device=rows_ND.device), right=True)
    return torch.bmm(rows_ND.unsqueeze(1), weights_GDF.index_select(0, group)).squeeze(1)


def supports_grouped(rows: Tensor, weights: Tensor) -> bool:
    """Whether torch has a grouped kernel here: fp32 and bf16 on CPU, bf16 on CUDA since Hopper, rows of 16 bytes."""
    if any(operand.shape[-1] * operand.element_size() % 16 for operand in (rows, weights)):
        return False
    if rows.is_cuda:
        return rows.dtype is torch.bfloat16 and torch.cuda.get_device_capability(rows.device) >= (9, 0)
    return rows.dtype in (torch.float32, torch.bfloat16)


def expert_product(x_RMD: Tensor, up_RDEF: Tensor, gate_RDEF: Tensor, down_REFD: Tensor, routing: Routing) -> Tensor:
    """sum_k weight_k * down_k(silu(gate_k x) * up_k x), [R, M, D], in the way that is quicker for the shape."""
    product = grouped_experts if prefer_grouped(x_RMD, up_RDEF, routing) else all_experts
    return product(x_RMD, up_RDEF, gate_RDEF, down_REFD, routing)


def prefer_grouped(x_RMD: Tensor, up_RDEF: Tensor, routing: Routing) -> bool:
    """True when sorting pays: measured in bench/expert_product.py."""
    total, active = up_RDEF.shape[2], routing.indices.shape[-1]
    return supports_grouped(x_RMD, up_RDEF) and total >= 2 * active
