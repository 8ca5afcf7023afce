"""What a router decides: by token (Routing), by expert (ExpertChoice), or as a matrix, which both can be written as."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mue_check.spec import Experts


@dataclass(frozen=True)
class Routing:
    """Which experts see a token and with what weight: both [R, M, K], the experts of a token all different."""

    weights: Tensor
    indices: Tensor


@dataclass(frozen=True)
class ExpertChoice:
    """Which tokens an expert takes and with what weight: both [R, E, C]. A token may get no expert, or all."""

    weights: Tensor
    indices: Tensor


@dataclass(frozen=True)
class DenseRouting:
    """Each token's weight at each expert and whether the two meet, both [R, M, E]; any number of experts per token."""

    weights: Tensor
    met: Tensor


AnyRouting = Routing | ExpertChoice | DenseRouting


def select(scores_RME: Tensor, experts: Experts, bias_RE: Tensor | None = None) -> Routing:
    """The top a/G of each group by score + bias, with the scores themselves as weights."""
    grouped = (experts.groups, experts.total // experts.groups)
    biased = scores_RME if bias_RE is None else scores_RME.detach() + bias_RE.unsqueeze(1)
    values, indices = biased.view(*biased.shape[:2], *grouped).topk(experts.activated // experts.groups, dim=-1)
    first = torch.arange(experts.groups, device=indices.device).unsqueeze(-1) * grouped[1]
    indices = (indices + first).flatten(-2)
    return Routing(values.flatten(-2) if bias_RE is None else scores_RME.gather(-1, indices), indices)


def scaled_weights(routing: AnyRouting, multiplier: float) -> AnyRouting:
    """The same choice with every weight times ``multiplier``."""
    return routing if multiplier == 1 else replace(routing, weights=routing.weights * multiplier)


def combine(routing: AnyRouting, tokens: int, total: int) -> Tensor:
    """[R, M, E]: each token's weight at each expert, 0 where the two do not meet."""
    weights = routing.weights
    if isinstance(routing, DenseRouting):
        return weights
    if isinstance(routing, Routing):
        return weights.new_zeros(len(weights), tokens, total).scatter(-1, routing.indices, weights)
    return weights.new_zeros(len(weights), total, tokens).scatter(-1, routing.indices, weights).transpose(1, 2)


def assignments(routing: AnyRouting, tokens: int, total: int) -> Tensor:
    """[R, M, E]: 1 where a token sees an expert, else 0; no gradient."""
    if isinstance(routing, DenseRouting):
        return routing.met.to(routing.weights.dtype)
    return combine(replace(routing, weights=torch.ones_like(routing.weights)), tokens, total)
