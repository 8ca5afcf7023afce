"""Routers that score each expert independently, right and broken: sigmoid or softmax, before the choice or after it.

Broken: rows 1, 2, 4, 5, 20, 28 and 30 to 33 of the table of bugs. T tokens, E experts, a of them activated.
"""

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check.mutants.mutant import mistake
from mue_check.routing.claim import RoutingSpec

Weighted = tuple[Tensor, Tensor]
"""Weights [T, a] and indices [T, a]."""
Logged = tuple[Tensor, Tensor, Tensor]
"""Logits [T, E], weights [T, a] and indices [T, a], as transformers' routers return them."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """Float32 for anything narrower; float64 stays, so that a check may compute in it."""
    return torch.promote_types(dtype, torch.float32)


def normalized(weights: Tensor) -> Tensor:
    """Weights [T, a] over their sum."""
    return weights / weights.sum(-1, keepdim=True)


def normalized_sigmoid(logits: Tensor) -> Tensor:
    """Sigmoid scores over their sum; as a softmax of logarithms it is finite where all scores are 0 in float32."""
    return F.logsigmoid(logits).softmax(-1)


class Gate(nn.Module):
    """Logits [T, E] of x [T, d_model], with one row of weights per expert. Each router derives the rest from them."""

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
        """In float32 for every dtype of the model: bfloat16 flips the choice of a few percent of the tokens."""
        return F.linear(x.to(wide(x.dtype)), self.weight.to(wide(x.dtype)))


class ModelTypeGate(Gate):
    """Logits in the model's own type, as most of transformers' routers compute them; only the softmax is wider."""

    def logits(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class CompleteMueRouter(Gate):
    """Sigmoid scores, the best a, normalized over them (arXiv 2605.23893)."""

    routing_spec = RoutingSpec(gate="sigmoid", order="score_first", fp32_gate=True)

    def forward(self, x: Tensor) -> Weighted:
        # the sigmoid is monotone and saturates: the order of logits stays where scores tie at 1
        best, indices = self.logits(x).topk(self.top_k, dim=-1)
        return normalized_sigmoid(best), indices


@mistake(20, "gate-precision", "gate_always_in_bfloat16", seen="sgl-project/sglang PR#33764")
class AlwaysBfloat16(CompleteMueRouter):
    """The gate always casts to bfloat16, which flips some choices."""

    routing_spec = replace(CompleteMueRouter.routing_spec, fp32_gate=None)

    def logits(self, x: Tensor) -> Tensor:
        return F.linear(x.to(torch.bfloat16), self.weight.to(torch.bfloat16)).to(wide(x.dtype))


@mistake(20, "gate-bf16", "gate_in_model_type", seen="sgl-project/sglang PR#33764")
class ModelTypeLogits(CompleteMueRouter):
    """The gate computes in bfloat16 in a bfloat16 model, and claims float32."""

    def logits(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight).to(wide(x.dtype))


@mistake(28, "load-at-init", seen="zero-initialised routers")
class ZeroRouter(CompleteMueRouter):
    """A router of zeros: all logits tie, and every token takes the experts that topk returns first."""

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__(d_model, n_experts, top_k)
        nn.init.zeros_(self.weight)


@mistake(30, "shifted-logits", seen="sgl-project/sglang PR#34459")
class ScoresByComplement(CompleteMueRouter):
    """A sigmoid computed as 1 minus that of -x, which rounds to 0 below -16.6: a token can lose all its experts."""

    def forward(self, x: Tensor) -> Weighted:
        best, indices = self.logits(x).topk(self.top_k, dim=-1)
        scores = 1 - (-best).sigmoid()
        return scores / (scores.sum(-1, keepdim=True) + 1e-20), indices


@mistake(31, "router-parameters", seen="yfzhang114/SliME #3")
class UnusedTemperature(CompleteMueRouter):
    """A learned temperature is made and never used."""

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__(d_model, n_experts, top_k)
        self.temperature = nn.Parameter(torch.ones(()))


@mistake(33, "published-sizes", seen="MetaX-MACA/vLLM-metax #270")
class SoftmaxAtOneSize(CompleteMueRouter):
    """The kernel for 128 experts, 8 of them activated, has a softmax in place of the sigmoid."""

    def forward(self, x: Tensor) -> Weighted:
        if (self.n_experts, self.top_k) != (128, 8):
            return super().forward(x)
        best, indices = self.logits(x).topk(self.top_k, dim=-1)
        return best.softmax(-1), indices


class MixtralRouter(ModelTypeGate):
    """Softmax over all experts, the best a, normalized over them (Mixtral, Qwen3-MoE)."""

    routing_spec = RoutingSpec(gate="softmax", order="score_first", returns={"logits": 0, "weights": 1, "indices": 2})

    def forward(self, x: Tensor) -> Logged:
        logits = self.logits(x)
        weights, indices = logits.softmax(-1, dtype=wide(x.dtype)).topk(self.top_k, dim=-1)
        return logits, self.scaled(weights).to(x.dtype), indices

    def scaled(self, weights: Tensor) -> Tensor:
        """norm_topk_prob=True: the chosen weights sum to 1."""
        return normalized(weights)


@mistake(32, "weight-sum", seen="Gemma 4 in transformers")
class LearnedScale(MixtralRouter):
    """Normalized weights times a learned scale for each expert: they sum to 1 at init only."""

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__(d_model, n_experts, top_k)
        self.per_expert_scale = nn.Parameter(torch.ones(n_experts))

    def forward(self, x: Tensor) -> Logged:
        logits, weights, indices = super().forward(x)
        return logits, weights * self.per_expert_scale[indices], indices


class OlmoeRouter(MixtralRouter):
    """The same with norm_topk_prob=False, on purpose: the weights sum to less than 1 (OLMoE, Qwen2-MoE)."""

    routing_spec = RoutingSpec(gate="softmax", order="score_first", weight_sum="free")

    def scaled(self, weights: Tensor) -> Tensor:
        return weights


@mistake(5, "weight-sign", seen="sgl-project/sglang PR#35160")
class LogitsAsWeights(OlmoeRouter):
    """Raw logits are returned as weights, by a path that skips the softmax along with the renormalization."""

    def forward(self, x: Tensor) -> Logged:
        logits = self.logits(x)
        return logits, *logits.topk(self.top_k, dim=-1)


@mistake(5, "weight-sum", seen="sgl-project/sglang PR#35160")
class LogitsAsNormalizedWeights(LogitsAsWeights):
    """Raw logits are returned as weights that are claimed to sum to 1."""

    routing_spec = replace(OlmoeRouter.routing_spec, weight_sum="one")


class GptOssRouter(ModelTypeGate):
    """The best a of biased logits, then a softmax over those alone (gpt-oss; Granite without the bias)."""

    routing_spec = RoutingSpec(gate="softmax", order="select_first")

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__(d_model, n_experts, top_k)
        self.bias = nn.Parameter(torch.randn(n_experts) * 0.1)

    def logits(self, x: Tensor) -> Tensor:
        """The bias is part of the projection: it reaches both the choice and the weights."""
        return F.linear(x, self.weight, self.bias)

    def forward(self, x: Tensor) -> Logged:
        logits = self.logits(x)
        best, indices = logits.topk(self.top_k, dim=-1)
        return logits, best.softmax(-1, dtype=wide(x.dtype)).to(x.dtype), indices


@mistake(4, "weight-sum", seen="pytorch/torchtitan #2258")
class SoftmaxOverAll(GptOssRouter):
    """Softmax over all experts where the model claims one over the chosen experts: the sum shrinks with E."""

    def forward(self, x: Tensor) -> Logged:
        logits = self.logits(x)
        weights, indices = logits.softmax(-1, dtype=wide(x.dtype)).topk(self.top_k, dim=-1)
        return logits, weights.to(x.dtype), indices


class SwitchRouter(Gate):
    """The one best expert, weighted by its probability among all, so the gate has a gradient (arXiv 2101.03961)."""

    routing_spec = RoutingSpec(gate="softmax", order="score_first", weight_sum="free", top_k=1, fp32_gate=True)

    def forward(self, x: Tensor) -> Weighted:
        return self.choose(self.logits(x))

    def choose(self, logits: Tensor) -> Weighted:
        """The greatest probability and its expert."""
        weights, indices = logits.softmax(-1).topk(1, dim=-1)
        return weights, indices


@mistake(1, "router-gradient", seen="NVIDIA/Megatron-LM #894; davidmrau/mixture-of-experts #27")
class SoftmaxAfterTopOne(SwitchRouter):
    """Softmax after top-1: the weight is always 1, and the gate never learns."""

    routing_spec = replace(SwitchRouter.routing_spec, order="select_first", weight_sum="one")

    def choose(self, logits: Tensor) -> Weighted:
        best, indices = logits.topk(self.top_k, dim=-1)
        return best.softmax(-1), indices


@mistake(2, "router-gradient", seen="jingyaogong/minimind #858")
class NormalizedTopOne(SwitchRouter):
    """One activated expert with normalized weights: the weight is always 1, and the gate never learns."""

    routing_spec = replace(SwitchRouter.routing_spec, weight_sum="one")

    def choose(self, logits: Tensor) -> Weighted:
        weights, indices = super().choose(logits)
        return weights / (weights.sum(-1, keepdim=True) + 1e-20), indices


@mistake(12, "input-mutation", seen="huggingface/transformers #33969")
class JitterInPlace(SwitchRouter):
    """In training, the router multiplies its input in place by exploration noise."""

    JITTER: ClassVar[float] = 0.01  # router_jitter_noise of transformers' Switch

    def forward(self, x: Tensor) -> Weighted:
        if self.training:
            x *= torch.empty_like(x).uniform_(1 - self.JITTER, 1 + self.JITTER)
        return super().forward(x)


class Llama4Router(ModelTypeGate):
    """Sigmoid of the best logit, 0 elsewhere; the block multiplies the expert's input by it (Llama 4)."""

    routing_spec = RoutingSpec(
        gate="sigmoid", weight_sum="free", top_k=1, apply_on="input", returns={"combine": 0, "logits": 1}
    )

    def forward(self, x: Tensor) -> Weighted:
        """Scores [T, E] and logits [T, E]: only their positions distinguish them."""
        logits = self.logits(x)
        best, indices = logits.topk(self.top_k, dim=-1)
        scores = torch.full_like(logits, -torch.inf).scatter(-1, indices, best).to(wide(x.dtype)).sigmoid()
        return scores.to(x.dtype), logits
