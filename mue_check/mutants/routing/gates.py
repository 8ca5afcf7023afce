"""Right routers that score every expert for itself: sigmoid or softmax, before the choice or after it."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check.routing.claim import RoutingSpec

Weighted = tuple[Tensor, Tensor]
"""Weights [T, a] and indices [T, a]."""
Logged = tuple[Tensor, Tensor, Tensor]
"""Logits [T, E], weights [T, a] and indices [T, a], as transformers' routers return them."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """Float32 for anything narrower; float64 stays, so that a check may compute in it."""
    return torch.promote_types(dtype, torch.float32)


class Gate(nn.Module):
    """Logits [T, E] of x [T, d_model], one row of weights per expert. What follows from them is each router's own."""

    routing_spec: ClassVar[RoutingSpec] = RoutingSpec()

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        if not 1 <= top_k <= n_experts:
            raise ValueError(f"top_k={top_k}: must be between 1 and n_experts={n_experts}")
        if self.routing_spec.top_k not in (None, top_k):
            raise ValueError(f"top_k={top_k}: {type(self).__name__} is a design for {self.routing_spec.top_k}")
        self.n_experts, self.top_k = n_experts, top_k
        self.weight = nn.Parameter(torch.randn(n_experts, d_model) * d_model**-0.5)

    def logits(self, x: Tensor) -> Tensor:
        """In float32 whatever the model's type: bfloat16 flips the choice of a few percent of the tokens."""
        return F.linear(x.to(wide(x.dtype)), self.weight.to(wide(x.dtype)))


class ModelTypeGate(Gate):
    """Logits in the model's own type, as most of transformers' routers compute them; only the softmax is wider."""

    def logits(self, x: Tensor) -> Tensor:
        """One product in x's type."""
        return F.linear(x, self.weight)


def normalized_sigmoid(logits: Tensor) -> Tensor:
    """Sigmoid scores over their sum; as a softmax of logarithms it is finite where all scores are 0 in float32."""
    return F.logsigmoid(logits).softmax(-1)


class CompleteMueRouter(Gate):
    """Sigmoid scores, the best a, normalized over them (arXiv 2605.23893)."""

    routing_spec = RoutingSpec(gate="sigmoid", order="score_first", fp32_gate=True)

    def forward(self, x: Tensor) -> Weighted:
        """Weights and indices."""
        # the sigmoid is monotone, and saturates: by logits the order stays where scores tie at 1
        best, indices = self.logits(x).topk(self.top_k, dim=-1)
        return normalized_sigmoid(best), indices


class MixtralRouter(ModelTypeGate):
    """Softmax over all experts, the best a, normalized over them (Mixtral, Qwen3-MoE)."""

    routing_spec = RoutingSpec(gate="softmax", order="score_first", returns={"logits": 0, "weights": 1, "indices": 2})

    def forward(self, x: Tensor) -> Logged:
        """Logits, weights in x's type, and indices."""
        logits = self.logits(x)
        weights, indices = logits.softmax(-1, dtype=wide(x.dtype)).topk(self.top_k, dim=-1)
        return logits, self.scaled(weights).to(x.dtype), indices

    def scaled(self, weights: Tensor) -> Tensor:
        """norm_topk_prob=True: the chosen weights sum to 1."""
        return weights / weights.sum(-1, keepdim=True)


class OlmoeRouter(MixtralRouter):
    """The same with norm_topk_prob=False, on purpose: the weights sum to less than 1 (OLMoE, Qwen2-MoE)."""

    routing_spec = RoutingSpec(gate="softmax", order="score_first", weight_sum="free")

    def scaled(self, weights: Tensor) -> Tensor:
        """Probabilities as they are."""
        return weights


class GptOssRouter(ModelTypeGate):
    """The best a of biased logits, then a softmax over those alone (gpt-oss; Granite without the bias)."""

    routing_spec = RoutingSpec(gate="softmax", order="select_first")

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__(d_model, n_experts, top_k)
        self.bias = nn.Parameter(torch.randn(n_experts) * 0.1)

    def logits(self, x: Tensor) -> Tensor:
        """The bias is part of the projection: it reaches choice and weights alike."""
        return F.linear(x, self.weight, self.bias)

    def forward(self, x: Tensor) -> Logged:
        """Logits, weights in x's type, and indices."""
        logits = self.logits(x)
        best, indices = logits.topk(self.top_k, dim=-1)
        return logits, best.softmax(-1, dtype=wide(x.dtype)).to(x.dtype), indices


class SwitchRouter(Gate):
    """The one best expert, weighted by its probability among all, so the gate has a gradient (arXiv 2101.03961)."""

    routing_spec = RoutingSpec(gate="softmax", order="score_first", weight_sum="free", top_k=1, fp32_gate=True)

    def forward(self, x: Tensor) -> Weighted:
        """Weights and indices, [T, 1] each."""
        return self.choose(self.logits(x))

    def choose(self, logits: Tensor) -> Weighted:
        """The greatest probability and whose it is."""
        weights, indices = logits.softmax(-1).topk(1, dim=-1)
        return weights, indices


class Llama4Router(ModelTypeGate):
    """Sigmoid of the best logit, 0 elsewhere; the block multiplies the expert's input by it (Llama 4)."""

    routing_spec = RoutingSpec(
        gate="sigmoid",
        weight_sum="free",
        top_k=1,
        apply_on="input",
        returns={"combine": 0, "logits": 1},
    )

    def forward(self, x: Tensor) -> Weighted:
        """Scores [T, E] and logits [T, E]: two of a kind, told apart by position alone."""
        logits = self.logits(x)
        best, indices = logits.topk(self.top_k, dim=-1)
        scores = torch.full_like(logits, -torch.inf).scatter(-1, indices, best).to(wide(x.dtype)).sigmoid()
        return scores.to(x.dtype), logits
