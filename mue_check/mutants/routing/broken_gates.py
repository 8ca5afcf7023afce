"""Mistakes in the gate's function: rows 1 to 7 and 20 of the table."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mue_check.mutants.routing.bug import Bug
from mue_check.mutants.routing.gates import (
    CompleteMueRouter,
    GptOssRouter,
    Logged,
    OlmoeRouter,
    SwitchRouter,
    Weighted,
    wide,
)
from mue_check.mutants.routing.selection import ErnieRouter, MoonlightRouter, TorchtitanRouter


class SoftmaxAfterTopOne(SwitchRouter):
    """The choice first: a softmax over the one that is left is 1 whatever the gate says."""

    routing_spec = replace(SwitchRouter.routing_spec, order="select_first", weight_sum="one")

    def choose(self, logits: Tensor) -> Weighted:
        """Indices that are right, weights that are constant."""
        best, indices = logits.topk(self.top_k, dim=-1)
        return best.softmax(-1), indices


class NormalizedTopOne(SwitchRouter):
    """The probability over its own sum: 1 whatever the gate says, and a gradient of rounding errors."""

    routing_spec = replace(SwitchRouter.routing_spec, weight_sum="one")

    def choose(self, logits: Tensor) -> Weighted:
        """Normalized as at a > 1."""
        weights, indices = super().choose(logits)
        return weights / (weights.sum(-1, keepdim=True) + 1e-20), indices


class UnnormalizedSigmoid(TorchtitanRouter):
    """Scores as they are; their sum grows with a."""

    def weigh(self, chosen: Tensor) -> Tensor:
        """No route_norm."""
        return chosen.sigmoid()


class SoftmaxOverAll(GptOssRouter):
    """A softmax over all experts where the model's is over the chosen ones."""

    def forward(self, x: Tensor) -> Logged:
        """The same choice, weights whose sum shrinks with E."""
        logits = self.logits(x)
        weights, indices = logits.softmax(-1, dtype=wide(x.dtype)).topk(self.top_k, dim=-1)
        return logits, weights.to(x.dtype), indices


class LogitsAsWeights(OlmoeRouter):
    """Without renormalization the path that skips it skips the softmax too."""

    def forward(self, x: Tensor) -> Logged:
        """The same choice, weights of either sign."""
        logits = self.logits(x)
        weights, indices = logits.topk(self.top_k, dim=-1)
        return logits, weights, indices


class LogitsAsNormalizedWeights(LogitsAsWeights):
    """The same in a model that says its weights sum to 1."""

    routing_spec = replace(OlmoeRouter.routing_spec, weight_sum="one")


class BiasInSoftmaxWeights(ErnieRouter):
    """The biased probabilities are chosen and kept: the sum is 1 and the shares are wrong."""

    def forward(self, x: Tensor) -> Weighted:
        """Weights of the choice's own scores."""
        biased = self.logits(x).softmax(-1) + self.moe_statics
        weights, indices = biased.topk(self.top_k, dim=-1)
        return weights / weights.sum(-1, keepdim=True), indices


class BiasInSigmoidWeights(MoonlightRouter):
    """The same with sigmoid scores, after a refactoring that reused a name."""

    def forward(self, x: Tensor) -> Logged:
        """Weights of the choice's own scores."""
        logits = self.logits(x)
        scores = self.function(logits) + self.e_score_correction_bias
        weights, indices = scores.topk(self.top_k, dim=-1)
        return logits, weights / weights.sum(-1, keepdim=True) * self.scale, indices

    def function(self, logits: Tensor) -> Tensor:
        """Sigmoid."""
        return logits.sigmoid()


class SoftmaxForSigmoid(MoonlightRouter):
    """Another function than the checkpoint's: it sums to the same, and half of the weights are plausible."""

    def forward(self, x: Tensor) -> Logged:
        """Softmax for choice and weights."""
        logits = self.logits(x)
        indices = self.select(logits.detach().softmax(-1) + self.e_score_correction_bias)
        return logits, logits.gather(-1, indices).softmax(-1) * self.scale, indices


class BiasInWeights(BiasInSigmoidWeights):
    """The bias in the weights, on top of softmax for sigmoid, as both were met."""

    def function(self, logits: Tensor) -> Tensor:
        """Softmax."""
        return logits.softmax(-1)


class ScaleDropped(MoonlightRouter):
    """routed_scaling_factor is in the configuration and nowhere else."""

    def forward(self, x: Tensor) -> Logged:
        """Weights that sum to 1."""
        logits, weights, indices = super().forward(x)
        return logits, weights / self.scale, indices


class AlwaysBfloat16(CompleteMueRouter):
    """The gate's product in bfloat16 in every model, for its tensor cores."""

    def logits(self, x: Tensor) -> Tensor:
        """Rounded to 8 bits, and handed on as if they were exact."""
        return F.linear(x.to(torch.bfloat16), self.weight.to(torch.bfloat16)).to(wide(x.dtype))


class ModelTypeLogits(CompleteMueRouter):
    """The gate's product in the model's type, which is bfloat16 where it counts."""

    def logits(self, x: Tensor) -> Tensor:
        """Right in float32."""
        return F.linear(x, self.weight).to(wide(x.dtype))


GATES = (
    Bug(
        row=1,
        name="softmax_after_top_one",
        summary="softmax after top-1: the weight is 1 whatever the gate says, and the gate never learns",
        seen="NVIDIA/Megatron-LM #894; davidmrau/mixture-of-experts #27",
        candidate="router",
        caught_by="router-gradient",
        factory=SoftmaxAfterTopOne,
        claim=SoftmaxAfterTopOne.routing_spec,
        twin=SwitchRouter,
    ),
    Bug(
        row=2,
        name="normalized_top_one",
        summary="a = 1 with normalization: the same",
        seen="jingyaogong/minimind #858",
        candidate="router",
        caught_by="router-gradient",
        factory=NormalizedTopOne,
        claim=NormalizedTopOne.routing_spec,
        twin=SwitchRouter,
    ),
    Bug(
        row=3,
        name="top_k_not_normalized",
        summary="sigmoid weights not normalized, in a model that says they are",
        seen="pytorch/torchtitan #1448",
        candidate="router",
        caught_by="weight-sum",
        factory=UnnormalizedSigmoid,
        claim=TorchtitanRouter.routing_spec,
        twin=TorchtitanRouter,
    ),
    Bug(
        row=4,
        name="softmax_over_all",
        summary="softmax over all experts where the model says over the chosen ones",
        seen="pytorch/torchtitan #2258",
        candidate="router",
        caught_by="weight-sum",
        factory=SoftmaxOverAll,
        claim=GptOssRouter.routing_spec,
        twin=GptOssRouter,
    ),
    Bug(
        row=5,
        name="logits_as_weights",
        summary="raw logits returned as weights, where any sum may come out",
        seen="sgl-project/sglang PR#35160",
        candidate="router",
        caught_by="weight-sign",
        factory=LogitsAsWeights,
        claim=OlmoeRouter.routing_spec,
        twin=OlmoeRouter,
    ),
    Bug(
        row=5,
        name="logits_as_normalized_weights",
        summary="raw logits returned as weights that are said to sum to 1",
        seen="sgl-project/sglang PR#35160",
        candidate="router",
        caught_by="weight-sum",
        factory=LogitsAsNormalizedWeights,
        claim=LogitsAsNormalizedWeights.routing_spec,
        twin=OlmoeRouter,
    ),
    Bug(
        row=6,
        name="bias_in_softmax_weights",
        summary="the selection bias leaks into normalized softmax weights",
        seen="huggingface/transformers PR#39581",
        candidate="router",
        caught_by="bias-selection",
        factory=BiasInSoftmaxWeights,
        claim=ErnieRouter.routing_spec,
        twin=ErnieRouter,
    ),
    Bug(
        row=6,
        name="bias_in_sigmoid_weights",
        summary="the selection bias leaks into normalized sigmoid weights",
        seen="huggingface/transformers PR#41663",
        candidate="router",
        caught_by="bias-selection",
        factory=BiasInSigmoidWeights,
        claim=MoonlightRouter.routing_spec,
        twin=MoonlightRouter,
    ),
    Bug(
        row=7,
        name="softmax_for_sigmoid",
        summary="softmax where the checkpoint was trained with sigmoid; the sum is right",
        seen="ml-explore/mlx-lm #1883",
        candidate="router",
        caught_by="gate",
        factory=SoftmaxForSigmoid,
        claim=MoonlightRouter.routing_spec,
        twin=MoonlightRouter,
    ),
    Bug(
        row=7,
        name="bias_in_weights_of_wrong_gate",
        summary="bias in the weights, on softmax for sigmoid",
        seen="ml-explore/mlx-lm #1883",
        candidate="router",
        caught_by="bias-selection",
        factory=BiasInWeights,
        claim=MoonlightRouter.routing_spec,
        twin=MoonlightRouter,
    ),
    Bug(
        row=7,
        name="routed_scale_dropped",
        summary="the router's scale is configured and not applied",
        seen="ml-explore/mlx-lm #1883",
        candidate="router",
        caught_by="weight-sum",
        factory=ScaleDropped,
        claim=MoonlightRouter.routing_spec,
        twin=MoonlightRouter,
    ),
    Bug(
        row=20,
        name="gate_always_in_bfloat16",
        summary="the gate casts to bfloat16 whatever the model's type, and flips some choices",
        seen="sgl-project/sglang PR#33764",
        candidate="router",
        caught_by="gate-precision",
        factory=AlwaysBfloat16,
        claim=replace(CompleteMueRouter.routing_spec, fp32_gate=None),
        twin=CompleteMueRouter,
    ),
    Bug(
        row=20,
        name="gate_in_model_type",
        summary="the gate computes in bfloat16 in a bfloat16 model, and says float32",
        seen="sgl-project/sglang PR#33764",
        candidate="router",
        caught_by="gate-bf16",
        factory=ModelTypeLogits,
        claim=CompleteMueRouter.routing_spec,
        twin=CompleteMueRouter,
    ),
)
