"""Routers with dense returns, right and broken: probabilities with a map, capacity and drops, and experts that choose.

Broken: rows 17 and 18 of the table of bugs. T tokens, E experts, a of them activated, C slots per expert.
"""

import math
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from mue_check.mutants.mutant import mistake
from mue_check.mutants.routing.gates import Gate, SwitchRouter, Weighted
from mue_check.routing.claim import RoutingSpec


class CapacityGate(Gate):
    """A gate with a bound on the tokens of an expert; ``capacity_factor`` may be set, to inf for a dropless router."""

    not_requested: ClassVar[float] = -math.inf
    """Priority of a place that was not requested: it must lose to every request."""

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__(d_model, n_experts, top_k)
        self.capacity_factor = self.routing_spec.capacity_factor or math.inf

    def capacity(self, tokens: int) -> int:
        """ceil(factor * T * a / E), and never more than there are tokens."""
        return math.ceil(min(tokens, self.capacity_factor * tokens * self.top_k / self.n_experts))

    def kept(self, requested: Tensor, priority: Tensor) -> Tensor:
        """True [T, E] for each expert's requests of greatest ``priority``, up to its capacity."""
        masked = priority.detach().masked_fill(~requested, self.not_requested)
        best = masked.topk(self.capacity(len(masked)), dim=0).indices
        return torch.zeros_like(requested).scatter(0, best, True) & requested


class MegatronRouter(CapacityGate):
    """Softmax over the best a, spread over all experts (Megatron-core, dropless)."""

    routing_spec = RoutingSpec(gate="softmax", order="select_first", fp32_gate=True)

    def forward(self, x: Tensor) -> Weighted:
        """Probabilities [T, E] and the routing map [T, E]."""
        return self.route(self.logits(x))

    def route(self, logits: Tensor) -> Weighted:
        """Every request is kept."""
        best, indices = logits.topk(self.top_k, dim=-1)
        probabilities = torch.zeros_like(logits).scatter(-1, indices, best.softmax(-1))
        return probabilities, torch.zeros_like(logits, dtype=torch.bool).scatter(-1, indices, True)


class MegatronCapacityRouter(MegatronRouter):
    """The same with capacity: an expert keeps its most probable requests, a dropped one leaves its share unused."""

    # not causal: a later token of greater probability takes an earlier one's place
    routing_spec = replace(MegatronRouter.routing_spec, kind="capacity", capacity_factor=1.0, causal=False)

    def route(self, logits: Tensor) -> Weighted:
        """Probabilities, 0 where dropped, and the map of the requests that were kept."""
        probabilities, requested = super().route(logits)
        # by probability among all experts: among the chosen it is always 1 at a = 1
        kept = self.kept(requested, logits.softmax(-1))
        return probabilities.masked_fill(~kept, 0), kept


class SwitchCapacityRouter(CapacityGate):
    """Switch's one best expert with capacity, first come, first served (transformers' Switch)."""

    routing_spec = replace(SwitchRouter.routing_spec, kind="capacity", capacity_factor=1.25)

    def forward(self, x: Tensor) -> Weighted:
        """Probabilities [T, E], 0 where not routed, and the map [T, E] of the requests that were kept."""
        probabilities = self.logits(x).softmax(-1)
        best = probabilities.argmax(-1, keepdim=True)
        requested = best.unsqueeze(-1) == torch.arange(self.n_experts, device=x.device)
        kept = (requested & (self.place(requested) <= self.capacity(len(x)))).squeeze(-2)
        return probabilities.masked_fill(~kept, 0), kept

    def place(self, requested: Tensor) -> Tensor:
        """Place in its expert's queue, from 1: requested [T, 1, E] counted over tokens."""
        return requested.cumsum(dim=-3)


@mistake(17, "capacity", seen="huggingface/transformers #48293")
class CapacityNeverReached(SwitchCapacityRouter):
    """Cumsum over the wrong axis, of length 1: every request counts as its expert's first."""

    def place(self, requested: Tensor) -> Tensor:
        return requested.cumsum(dim=-2)


class DeepSpeedRouter(CapacityGate):
    """Softmax, the best a, capacity by probability, normalized over the requests kept (DeepSpeed's topkgating)."""

    # not causal: a later token of greater probability takes an earlier one's place
    routing_spec = RoutingSpec(kind="capacity", gate="softmax", capacity_factor=1.25, fp32_gate=True, causal=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Auxiliary loss (1 at even load), combine [T, E, C], dispatch [T, E, C] bool and the requests [E]."""
        logits = self.logits(x)
        gates = logits.softmax(-1)
        indices = logits.topk(self.top_k, dim=-1).indices
        requested = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, indices, True)
        kept = self.kept(requested, self.priority(logits))
        # one softmax over the kept ones: normalized, and finite where all have probability 0 or none is left
        weights = logits.masked_fill(~kept, torch.finfo(logits.dtype).min).softmax(-1).masked_fill(~kept, 0)
        place = kept.cumsum(0).unsqueeze(-1) - 1 == torch.arange(self.capacity(len(x)), device=x.device)
        dispatch = place & kept.unsqueeze(-1)
        auxiliary = (gates.mean(0) * requested.to(gates.dtype).mean(0)).sum() * self.n_experts / self.top_k
        return auxiliary, weights.unsqueeze(-1) * dispatch, dispatch, requested.sum(0)

    def priority(self, logits: Tensor) -> Tensor:
        """An expert keeps the requests of greatest probability."""
        return logits.softmax(-1)


@mistake(18, "capacity", seen="deepspeedai/DeepSpeed PR#7986")
class CapacityByLogits(DeepSpeedRouter):
    """Capacity by logits with 0 elsewhere: tokens that never asked take places, and requests are dropped."""

    not_requested = 0.0

    def priority(self, logits: Tensor) -> Tensor:
        return logits


class ExpertChoiceRouter(Gate):
    """Each expert takes the T a / E tokens that it scores highest, by softmax over experts (arXiv 2202.09368)."""

    routing_spec = RoutingSpec(
        kind="expert_choice",
        gate="softmax",
        order="score_first",
        weight_sum="free",
        capacity_factor=1.0,
        causal=False,
        fp32_gate=True,
    )

    def forward(self, x: Tensor) -> Weighted:
        """Indices of tokens [E, C] and their weights [E, C]."""
        capacity = math.ceil(len(x) * self.top_k / self.n_experts)
        weights, indices = self.logits(x).softmax(-1).transpose(0, 1).topk(capacity, dim=-1)
        return indices, weights
