"""The weights and the selection that a claim expects from the logits."""

from collections.abc import Iterator
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.reading import read_logits, route
from mue_check.routing.canonical import Routing
from mue_check.routing.claim import Gate, RoutingSpec

TOLERANCE = 1e-3
_GATES: tuple[Gate, ...] = ("sigmoid", "softmax")
_SUMS: tuple[Literal["one", "free"], ...] = ("one", "free")


def expected_weights(logits: Tensor, routing: Routing, claim: RoutingSpec) -> Tensor:
    """[T, E] weights of the selected experts by the claim's gate, order and sum; logits may include null experts'."""
    size, real = routing.mask.shape[1], routing.mask
    mask = real if claim.weight_sum != "free" and claim.null_experts is None else routing.mask_with_nulls
    if logits.shape[1] < mask.shape[1]:  # those of null experts are not visible
        mask = real
    mask = nn.functional.pad(mask, (0, logits.shape[1] - mask.shape[1]))
    over = logits.masked_fill(~mask, -torch.inf) if claim.order == "select_first" else logits
    scores = over.softmax(-1) if claim.gate == "softmax" else torch.sigmoid(over)
    scores = scores.masked_fill(~mask, 0)
    total = claim.expected_sum()
    if claim.weight_sum == "groups":
        grouped = scores.view(len(scores), claim.groups, -1)
        return (grouped / grouped.sum(-1, keepdim=True).clamp_min(1e-300)).view_as(scores)
    if total is not None:
        scores = total * scores / scores.sum(-1, keepdim=True).clamp_min(1e-300)
    return scores[:, :size].masked_fill(~real, 0)


def usual_weights(logits: Tensor, routing: Routing) -> Iterator[tuple[Gate, str, Tensor]]:
    """(gate, its name in words, weights) of each usual gate."""
    for gate, total in product(_GATES, _SUMS):
        name = f"a normalized {gate}" if total == "one" else f"a {gate} that is not normalized"
        yield gate, name, expected_weights(logits, routing, RoutingSpec(gate=gate, weight_sum=total))


def infer_gate(case: ConformanceCase) -> Gate | None:
    """The gate that the weights agree with up to a constant factor; None if neither does."""
    built, x = case.build(), case.tokens()
    routing, logits = route(built, x), read_logits(built, x)
    if logits is None:
        return None
    measured = routing.combine.detach().double()
    for gate, _, weights in usual_weights(logits.detach().double(), routing):
        scaled = weights * (measured.sum() / weights.sum())
        if float((scaled - measured).abs().max()) <= TOLERANCE * float(measured.max()):
            return gate
    return None


def is_partial_softmax(logits: Tensor, routing: Routing) -> bool:
    """Whether each weight is a softmax over experts from the best, or from its own on, to some rank (SparseMixer)."""
    ordered, order = logits.sort(-1, descending=True)
    total = (ordered - ordered[:, :1]).exp().cumsum(-1)
    token, expert = routing.mask.nonzero(as_tuple=True)
    rank = order.argsort(-1)[token, expert].unsqueeze(-1)  # [S, 1] of S selected experts
    own = (ordered - ordered[:, :1]).exp()[token].gather(-1, rank)
    before = total[token].gather(-1, rank) - own
    possible = torch.stack([own / total[token], own / (total[token] - before).clamp_min(1e-300)])
    below = torch.arange(logits.shape[1], device=logits.device) < rank
    weights = routing.combine.detach().double()[token, expert].unsqueeze(-1)
    errors = (possible - weights).abs().masked_fill(below, torch.inf)
    return bool((errors.amin(-1).amin(0) <= TOLERANCE).all())


def best_experts(logits: Tensor, taken: Tensor) -> Tensor:
    """[T, E] bool: of each token, as many of the best as it has taken [T, E]."""
    rank = logits.detach().argsort(dim=-1, descending=True).argsort(dim=-1)
    return rank < taken.sum(-1, keepdim=True)


def top_experts(logits: Tensor, k: int, groups: int = 1) -> Tensor:
    """[T, E] bool: the k best experts of each token, k / groups of each group."""
    grouped = logits.detach().view(len(logits), groups, -1)
    best = grouped.topk(k // groups, dim=-1).indices
    return torch.zeros_like(grouped, dtype=torch.bool).scatter(-1, best, True).flatten(-2)
