"""What routers decide for R runs at once: by token, by expert, or as a matrix, into which the other two can be turned.

``canonical.Routing`` is the form in which conformance reads the output of one router. torch is imported only where a
tensor is made: specs and records read the names of the variants without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What a router must know of the experts that it chooses from; ``spec.Experts`` adds all else.

    ``total`` routed experts (N), ``activated`` per token (a), of which each of ``groups`` (G) gives a/G.
    """

    router: str
    total: int
    activated: int
    groups: int = 1

    @property
    def target_load(self) -> tuple[float, ...]:
        """Each expert's share of all assignments; empty where the load is not steered."""
        return ()


@dataclass(frozen=True)
class TokenChoice:
    """Which experts see a token and with what weight: both [R, M, K], the experts of a token all different."""

    weights: Tensor
    indices: Tensor


@dataclass(frozen=True)
class ExpertChoice:
    """Which tokens an expert takes and with what weight: both [R, E, C]. A token may get no expert, or all."""

    weights: Tensor
    indices: Tensor


@dataclass(frozen=True)
class DenseChoice:
    """Each token's weight at each expert and whether the two meet, both [R, M, E]; any number of experts per token."""

    weights: Tensor
    met: Tensor


Choice = TokenChoice | ExpertChoice | DenseChoice


def select(scores_RME: Tensor, experts: Mixture, bias_RE: Tensor | None = None) -> TokenChoice:
    """The top a/G of each group by score + bias, with the scores themselves as weights."""
    import torch

    grouped = (experts.groups, experts.total // experts.groups)
    biased = scores_RME if bias_RE is None else scores_RME.detach() + bias_RE.unsqueeze(1)
    values, indices = biased.view(*biased.shape[:2], *grouped).topk(experts.activated // experts.groups, dim=-1)
    first = torch.arange(experts.groups, device=indices.device).unsqueeze(-1) * grouped[1]
    indices = (indices + first).flatten(-2)
    return TokenChoice(values.flatten(-2) if bias_RE is None else scores_RME.gather(-1, indices), indices)


C = TypeVar("C", "TokenChoice", "ExpertChoice", "DenseChoice")


def scaled_weights(choice: C, multiplier: float) -> C:
    """The same choice with every weight times ``multiplier``."""
    return choice if multiplier == 1 else replace(choice, weights=choice.weights * multiplier)


def combine(choice: Choice, tokens: int, total: int) -> Tensor:
    """[R, M, E]: each token's weight at each expert, 0 where the two do not meet."""
    weights = choice.weights
    if isinstance(choice, DenseChoice):
        return weights
    if isinstance(choice, TokenChoice):
        return weights.new_zeros(len(weights), tokens, total).scatter(-1, choice.indices, weights)
    return weights.new_zeros(len(weights), total, tokens).scatter(-1, choice.indices, weights).transpose(1, 2)


def assignments(choice: Choice, tokens: int, total: int) -> Tensor:
    """[R, M, E]: 1 where a token sees an expert, else 0; no gradient."""
    if isinstance(choice, DenseChoice):
        return choice.met.to(choice.weights.dtype)
    return combine(replace(choice, weights=choice.weights.new_ones(choice.weights.shape)), tokens, total)
