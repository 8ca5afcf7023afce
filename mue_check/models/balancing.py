"""Load balancing, and statistics of how a layer routes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mue_check.routing.choice import Choice, assignments, combine
from mue_check.routing.variants import probabilities

AUXILIARY_COEFFICIENT = 0.01
"""Switch Transformer, arXiv 2101.03961, section 2.2."""
BIAS_STEP = 0.001
"""Bias update speed of DeepSeek-V3, arXiv 2412.19437, section 4.2."""


@dataclass(frozen=True)
class LayerRouting:
    """How one layer routed in one forward pass: logits [R, M, E] and the choice.

    A user's router may not return its logits: then ``sizes`` gives M and E. ``auxiliary_R`` is the loss it returns.
    """

    logits_RME: Tensor | None
    routing: Choice
    sizes: tuple[int, int] | None = None
    auxiliary_R: Tensor | None = None

    def assignments(self) -> Tensor:
        """[R, M, E]: 1 where a token sees an expert; no gradient."""
        if self.logits_RME is None:
            assert self.sizes is not None
            return assignments(self.routing, *self.sizes)
        return assignments(self.routing, *self.logits_RME.shape[1:])


@dataclass(frozen=True)
class RoutingStatistics:
    """One layer's routing of some tokens, per run.

    ``load_RE``: share of all assignments, sums to 1. Per token with a active weights w, then averaged over the
    tokens that have an expert at all: ``weight_sum_R`` is sum w; ``variance_factor_R`` is a sum w^2 / (sum w)^2,
    the variance of the routed sum relative to that of equal weights. ``weight_sum_low_R`` and ``weight_sum_high_R``
    are the extremes over these tokens.
    """

    load_RE: Tensor
    weight_sum_R: Tensor
    weight_sum_low_R: Tensor
    weight_sum_high_R: Tensor
    variance_factor_R: Tensor


def auxiliary_loss(layers: Sequence[LayerRouting], router: str) -> Tensor:
    """N sum_i f_i P_i of each layer, averaged over layers: [R]; 1 at uniform load (arXiv 2101.03961, equation 4).

    f_i is expert i's share of the assignments (no gradient), P_i its mean probability. Each layer has its own loss:
    pooled layers could each collapse and look balanced together (huggingface/transformers #28255).
    """
    losses = []
    for layer in layers:
        load_RE = layer.assignments().sum(1)
        share_RE = load_RE / load_RE.sum(-1, keepdim=True)
        assert layer.logits_RME is not None  # only built-in routers are balanced
        mean_RE = probabilities(layer.logits_RME, router).mean(1)
        losses.append((share_RE * mean_RE).sum(-1) * share_RE.shape[-1])
    return torch.stack(losses).mean(0)


@torch.no_grad()
def update_selection_bias(bias_LRE: Tensor, layers: Sequence[LayerRouting]) -> None:
    """In place: up where an expert saw less than the mean load, down where more (arXiv 2408.15664, algorithm 1)."""
    load_LRE = torch.stack([layer.assignments().sum(1) for layer in layers])
    bias_LRE.add_(torch.sign(load_LRE.mean(-1, keepdim=True) - load_LRE), alpha=BIAS_STEP)


@torch.no_grad()
def routing_statistics(layer: LayerRouting) -> RoutingStatistics:
    """Load and weights of one layer's choice."""
    met_RME = layer.assignments()
    weights_RME = combine(layer.routing, *met_RME.shape[1:])
    active_RM, sum_RM = met_RME.sum(-1), weights_RME.sum(-1)
    routed_RM = active_RM > 0
    factor_RM = active_RM * weights_RME.square().sum(-1) / sum_RM.square()

    def mean(value_RM: Tensor) -> Tensor:
        return torch.where(routed_RM, value_RM, 0).sum(-1) / routed_RM.sum(-1)

    load_RE = met_RME.sum(1)
    return RoutingStatistics(
        load_RE=load_RE / load_RE.sum(-1, keepdim=True),
        weight_sum_R=mean(sum_RM),
        weight_sum_low_R=torch.where(routed_RM, sum_RM, torch.inf).amin(-1),
        weight_sum_high_R=torch.where(routed_RM, sum_RM, -torch.inf).amax(-1),
        variance_factor_R=mean(factor_RM),
    )
