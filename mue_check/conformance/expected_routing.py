"""The weights and the selection that a claim expects from the logits."""

from collections.abc import Iterator
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.reading import read_logits, route
from mue_check.routing.canonical import Routing
from mue_check.routing.claim import Gate, RoutingSpec

TOLERANCE = 1e-3
_GATES: tuple[Gate, ...] = ("sigmoid", "softmax")
_SUMS: tuple[Literal["one", "free"], ...] = ("one", "free")


def expected_weights(logits: Tensor, routing: Routing, claim: RoutingSpec) -> Tensor:
    """[T, E] weights of the selected experts by the claim's gate, order and sum."""
    mask = routing.mask
    over = logits.masked_fill(~mask, -torch.inf) if claim.order == "select_first" else logits
    scores = over.softmax(-1) if claim.gate == "softmax" else torch.sigmoid(over)
    scores = scores.masked_fill(~mask, 0)
    total = claim.expected_sum()
    if total is None:
        return scores
    if claim.weight_sum == "groups":
        grouped = scores.view(len(scores), claim.groups, -1)
        return (grouped / grouped.sum(-1, keepdim=True).clamp_min(1e-300)).view_as(scores)
    return total * scores / scores.sum(-1, keepdim=True).clamp_min(1e-300)


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


def top_experts(logits: Tensor, k: int, groups: int = 1) -> Tensor:
    """[T, E] bool: the k best experts of each token, k / groups of each group."""
    grouped = logits.detach().view(len(logits), groups, -1)
    best = grouped.topk(k // groups, dim=-1).indices
    return torch.zeros_like(grouped, dtype=torch.bool).scatter(-1, best, True).flatten(-2)
