"""Routing variants, one function per name of ``mue_check.routing.variants``.

Experts are selected by score plus selection bias; weights never see the bias (arXiv 2408.15664).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mue_check.models.choice import AnyRouting, ExpertChoice, Routing, select
from mue_check.models.content_blind import content_blind
from mue_check.spec import Experts

DEEPSEEK_SCALE = 2.5
"""routed_scaling_factor (DeepSeek-V3, arXiv 2412.19437, configuration)."""
SOFTMAX = ("softmax_norm", "switch", "moge", "expert_choice")
"""Routers whose scores are a softmax over all experts; the others score by sigmoid."""


def route(
    logits_RME: Tensor,
    experts: Experts,
    *,
    bias_RE: Tensor | None = None,
    place_RM: Tensor | None = None,
    layer: int = 0,
    expected_E: Tensor | None = None,
) -> AnyRouting:
    """The choice of ``experts.router``. Only content_blind uses ``place_RM`` (``place_keys``), ``layer`` and
    ``expected_E`` (``expected_draws``)."""
    if experts.router == "expert_choice":
        return expert_choice(logits_RME, experts)
    if experts.router == "content_blind":
        if place_RM is None:
            raise ValueError("content_blind routes by place: pass place_RM=place_keys(tokens)")
        return content_blind(place_RM, layer, experts, logits_RME.dtype, expected_E)
    return BY_SCORE[experts.router](logits_RME, experts, bias_RE)


def scores(logits_RME: Tensor, router: str) -> Tensor:
    """What experts are selected by, before any bias."""
    return logits_RME.softmax(-1) if router in SOFTMAX else torch.sigmoid(logits_RME)


def probabilities(logits_RME: Tensor, router: str) -> Tensor:
    """The router's scores as a distribution over experts; sigmoid scores are normalized, as DeepSeek-V3 does."""
    return logits_RME.softmax(-1) if router in SOFTMAX else normalized(torch.sigmoid(logits_RME))


def normalized(weights: Tensor) -> Tensor:
    """Weights that sum to 1 over the last axis."""
    return weights / weights.sum(-1, keepdim=True)


def sigmoid_norm(logits_RME: Tensor, experts: Experts, bias_RE: Tensor | None = None) -> Routing:
    """Sigmoid scores, top a/G of each group, normalized over all a (arXiv 2605.23893, "global norm")."""
    chosen = select(torch.sigmoid(logits_RME), experts, bias_RE)
    return Routing(normalized(chosen.weights), chosen.indices)


def sigmoid_group_norm(logits_RME: Tensor, experts: Experts, bias_RE: Tensor | None = None) -> Routing:
    """Sigmoid scores, top a/G of each group, each group's weights sum to 1 (arXiv 2605.23893)."""
    chosen = select(torch.sigmoid(logits_RME), experts, bias_RE)
    weights = chosen.weights.view(*chosen.weights.shape[:2], experts.groups, -1)
    return Routing(normalized(weights).flatten(-2), chosen.indices)


def softmax_norm(logits_RME: Tensor, experts: Experts, bias_RE: Tensor | None = None) -> Routing:
    """Softmax over all experts, top a/G of each group, normalized over all a (Mixtral, arXiv 2401.04088)."""
    indices = select(logits_RME.detach().softmax(-1), experts, bias_RE).indices
    # the same as normalizing the probabilities, and finite where all that were selected are 0 in float32
    return Routing(logits_RME.gather(-1, indices).softmax(-1), indices)


def switch(logits_RME: Tensor, experts: Experts, bias_RE: Tensor | None = None) -> Routing:
    """Softmax over all experts, the best one, weighted by its probability (arXiv 2101.03961)."""
    return select(logits_RME.softmax(-1), experts, bias_RE)


def deepseek_v3(logits_RME: Tensor, experts: Experts, bias_RE: Tensor | None = None) -> Routing:
    """Sigmoid scores, top a within the better half of four groups, normalized, times 2.5 (arXiv 2412.19437).

    A group ranks by the sum of its two best biased scores. Fewer than 16 experts are one group.
    """
    scores = torch.sigmoid(logits_RME)
    biased = scores.detach() if bias_RE is None else scores.detach() + bias_RE.unsqueeze(1)
    if experts.total >= 16 and experts.total % 4 == 0:
        grouped = biased.view(*biased.shape[:2], 4, -1)
        kept = max(2, math.ceil(experts.activated / grouped.shape[-1]))
        best = grouped.topk(2, dim=-1).values.sum(-1).topk(kept, dim=-1).indices
        dropped = torch.ones(grouped.shape[:-1], dtype=torch.bool, device=best.device).scatter(-1, best, False)
        # -inf, not 0: a biased score may be negative, and 0 would beat it (vllm PR#13474)
        biased = grouped.masked_fill(dropped.unsqueeze(-1), -math.inf).flatten(-2)
    indices = biased.topk(experts.activated, dim=-1).indices
    return Routing(normalized(scores.gather(-1, indices)) * DEEPSEEK_SCALE, indices)


def moge(logits_RME: Tensor, experts: Experts, bias_RE: Tensor | None = None) -> Routing:
    """Softmax over all experts, top a/G of each group, weighted by probability (Pangu Pro MoE, arXiv 2505.21411)."""
    return select(logits_RME.softmax(-1), experts, bias_RE)


def sigmoid_mean(logits_RME: Tensor, experts: Experts, bias_RE: Tensor | None = None) -> Routing:
    """Sigmoid scores, top a/G of each group, each score over a (arXiv 2601.20205)."""
    chosen = select(torch.sigmoid(logits_RME), experts, bias_RE)
    return Routing(chosen.weights / experts.activated, chosen.indices)


def expert_choice(logits_RME: Tensor, experts: Experts) -> ExpertChoice:
    """Each expert takes its C = M a / N tokens of highest softmax over experts (arXiv 2202.09368).

    It looks at all M tokens of the batch at once, later ones too: the model is not causal.
    """
    tokens = logits_RME.shape[1]
    capacity = min(tokens, max(1, math.ceil(tokens * experts.activated / experts.total)))
    weights, indices = logits_RME.softmax(-1).transpose(1, 2).topk(capacity, dim=-1)
    return ExpertChoice(weights, indices)


BY_SCORE: dict[str, Callable[[Tensor, Experts, Tensor | None], Routing]] = {
    "sigmoid_norm": sigmoid_norm,
    "sigmoid_group_norm": sigmoid_group_norm,
    "softmax_norm": softmax_norm,
    "switch": switch,
    "deepseek_v3": deepseek_v3,
    "moge": moge,
    "sigmoid_mean": sigmoid_mean,
}
"""Token choice by score: each takes logits [R, M, E] and an optional selection bias [R, E]."""
