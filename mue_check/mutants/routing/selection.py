"""Routers whose choice depends on more than the score, right and broken: a balancing bias, groups, or both.

Broken: rows 3, 6, 7, 8, 9, 19, 29 and 34 of the table of bugs. T tokens, E experts, a of them activated.
"""

from dataclasses import replace

import torch
from torch import Tensor

from mue_check.mutants.mutant import mistake
from mue_check.mutants.routing.gates import Gate, Logged, Weighted, normalized, normalized_sigmoid
from mue_check.routing.claim import RoutingSpec

BIAS_STEP = 0.001
"""Bias update speed of DeepSeek-V3, arXiv 2412.19437, section 4.2."""


def require_groups(n_experts: int, top_k: int, groups: int, limit: int) -> None:
    """ValueError for groups that cannot hold the choice (huggingface/transformers #48647)."""
    if n_experts % groups:
        raise ValueError(f"n_experts={n_experts}: must be a multiple of groups={groups}")
    if groups > 1 and n_experts < 2 * groups:
        raise ValueError(f"n_experts={n_experts}: a group is ranked by two experts, so groups={groups} need two each")
    if top_k > limit * (n_experts // groups):
        raise ValueError(f"top_k={top_k}: {limit} groups of {n_experts // groups} experts do not hold as many")


def best_groups(biased: Tensor, groups: int, limit: int) -> Tensor:
    """True [T, E] for the experts of the ``limit`` groups with the greatest sum of two best scores."""
    grouped = biased.view(*biased.shape[:-1], groups, -1)
    kept = grouped.topk(2, dim=-1).values.sum(-1).topk(limit, dim=-1).indices
    allowed = torch.zeros_like(grouped[..., 0], dtype=torch.bool).scatter(-1, kept, True)
    return allowed.unsqueeze(-1).expand_as(grouped).flatten(-2)


class DeepSeekV3Router(Gate):
    """Sigmoid scores, the best a by biased score of two of four groups, normalized, times 2.5 (arXiv 2412.19437)."""

    routing_spec = RoutingSpec(
        gate="sigmoid",
        order="score_first",
        weight_sum=2.5,
        groups=4,
        group_limit=2,
        group_rank="top2_sum",
        selection_bias="e_score_correction_bias",
        fp32_gate=True,
    )
    e_score_correction_bias: Tensor

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__(d_model, n_experts, top_k)
        self.groups = self.routing_spec.groups
        self.group_limit = self.routing_spec.group_limit or self.groups
        self.scale = self.routing_spec.expected_sum() or 1.0
        self.validate()
        self.register_buffer("e_score_correction_bias", torch.zeros(n_experts))

    def validate(self) -> None:
        """Refuse groups that cannot hold the choice."""
        require_groups(self.n_experts, self.top_k, self.groups, self.group_limit)

    def select(self, biased: Tensor) -> Tensor:
        """Indices [T, a] of the best within the best groups."""
        if self.groups > 1:
            # -inf and not 0: a biased score may be negative, and 0 would beat it
            biased = biased.masked_fill(~best_groups(biased, self.groups, self.group_limit), -torch.inf)
        return biased.topk(self.top_k, dim=-1).indices

    def forward(self, x: Tensor) -> Logged:
        """The weights do not depend on the bias."""
        logits = self.logits(x)
        indices = self.select(logits.detach().sigmoid() + self.e_score_correction_bias)
        return logits, normalized_sigmoid(logits.gather(-1, indices)) * self.scale, indices


@mistake(8, "group-limit", seen="vllm-project/vllm PR#13474; sgl-project/sglang PR#3705")
class GroupsMaskedWithZero(DeepSeekV3Router):
    """Experts of masked groups score 0, so an allowed one with a negative biased score loses to them."""

    def select(self, biased: Tensor) -> Tensor:
        allowed = best_groups(biased, self.groups, self.group_limit)
        return biased.masked_fill(~allowed, 0.0).topk(self.top_k, dim=-1).indices


@mistake(34, "group-rank", seen="tenstorrent/tt-metal PR#43401")
class GroupsByFirstExpert(DeepSeekV3Router):
    """Groups are ranked by the score of their first expert: the limit holds, and the best groups are left out."""

    def select(self, biased: Tensor) -> Tensor:
        grouped = biased.view(*biased.shape[:-1], self.groups, -1)
        kept = grouped[..., 0].topk(self.group_limit, dim=-1).indices
        allowed = torch.zeros_like(grouped[..., 0], dtype=torch.bool).scatter(-1, kept, True)
        masked = grouped.masked_fill(~allowed.unsqueeze(-1), -torch.inf).flatten(-2)
        return masked.topk(self.top_k, dim=-1).indices


@mistake(9, "group-infeasible", seen="huggingface/transformers #48647")
class InfeasibleGroups(DeepSeekV3Router):
    """A group limit that cannot hold the choice is accepted, and experts of -inf are selected."""

    def validate(self) -> None:
        pass


class MoonlightRouter(DeepSeekV3Router):
    """DeepSeek-V3's router with one group and a scale of 2.446 (Moonlight-16B-A3B; LFM2-MoE but for the scale)."""

    routing_spec = replace(DeepSeekV3Router.routing_spec, weight_sum=2.446, groups=1, group_limit=None)


@mistake(6, "bias-selection", seen="huggingface/transformers PR#41663")
class BiasInSigmoidWeights(MoonlightRouter):
    """The selection bias leaks into normalized sigmoid weights."""

    def forward(self, x: Tensor) -> Logged:
        logits = self.logits(x)
        scores = self.function(logits) + self.e_score_correction_bias
        weights, indices = scores.topk(self.top_k, dim=-1)
        return logits, normalized(weights) * self.scale, indices

    def function(self, logits: Tensor) -> Tensor:
        """The right one."""
        return logits.sigmoid()


@mistake(7, "gate", seen="ml-explore/mlx-lm #1883")
class SoftmaxForSigmoid(MoonlightRouter):
    """Softmax where the checkpoint was trained with sigmoid; the sum is right."""

    def forward(self, x: Tensor) -> Logged:
        logits = self.logits(x)
        indices = self.select(logits.detach().softmax(-1) + self.e_score_correction_bias)
        return logits, logits.gather(-1, indices).softmax(-1) * self.scale, indices


@mistake(7, "bias-selection", "bias_in_weights_of_wrong_gate", seen="ml-explore/mlx-lm #1883")
class BiasInWeights(BiasInSigmoidWeights):
    """The selection bias leaks into the weights, and softmax replaces sigmoid."""

    def function(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)


@mistake(7, "weight-sum", "routed_scale_dropped", seen="ml-explore/mlx-lm #1883")
class ScaleDropped(MoonlightRouter):
    """The router's scale is configured and not applied."""

    def forward(self, x: Tensor) -> Logged:
        logits, weights, indices = super().forward(x)
        return logits, weights / self.scale, indices


class UnscaledRouter(DeepSeekV3Router):
    """The same summing to 1, for blocks that scale the routed sum themselves (sglang)."""

    routing_spec = replace(MoonlightRouter.routing_spec, weight_sum="one")


class ErnieRouter(Gate):
    """Softmax over all experts, the best a by probability plus bias, normalized over them (Ernie 4.5)."""

    routing_spec = RoutingSpec(gate="softmax", selection_bias="moe_statics", fp32_gate=True)
    moe_statics: Tensor

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__(d_model, n_experts, top_k)
        self.register_buffer("moe_statics", torch.zeros(n_experts))

    def forward(self, x: Tensor) -> Weighted:
        logits = self.logits(x)
        indices = (logits.detach().softmax(-1) + self.moe_statics).topk(self.top_k, dim=-1).indices
        # normalizing the chosen probabilities, and finite where the bias chose experts of probability 0
        return logits.gather(-1, indices).softmax(-1), indices


@mistake(6, "bias-selection", seen="huggingface/transformers PR#39581")
class BiasInSoftmaxWeights(ErnieRouter):
    """The selection bias leaks into normalized softmax weights: the sum is 1 and the shares are wrong."""

    def forward(self, x: Tensor) -> Weighted:
        weights, indices = (self.logits(x).softmax(-1) + self.moe_statics).topk(self.top_k, dim=-1)
        return normalized(weights), indices


class PanguRouter(Gate):
    """Softmax over all experts, the best of each of four groups, not normalized (Pangu Pro MoE, arXiv 2505.21411)."""

    routing_spec = RoutingSpec(
        gate="softmax", order="score_first", weight_sum="free", top_k=4, groups=4, per_group_k=1, fp32_gate=True
    )

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__(d_model, n_experts, top_k)
        self.groups = self.routing_spec.groups
        if n_experts % self.groups:
            raise ValueError(f"n_experts={n_experts}: must be a multiple of groups={self.groups}")

    def forward(self, x: Tensor) -> Weighted:
        probabilities = self.logits(x).softmax(-1)
        weights, indices = probabilities.view(len(x), self.groups, -1).topk(self.top_k // self.groups, dim=-1)
        first = torch.arange(self.groups, device=x.device).unsqueeze(-1) * (self.n_experts // self.groups)
        return weights.flatten(-2), (indices + first).flatten(-2)


class TorchtitanRouter(Gate):
    """Sigmoid scores, the best a by biased score, normalized; the bias moves once per optimizer step (torchtitan)."""

    routing_spec = RoutingSpec(
        gate="sigmoid",
        order="score_first",
        selection_bias="expert_bias",
        fp32_gate=True,
        returns={"weights": 0, "indices": 1, "scores": 2},
    )
    expert_bias: Tensor
    tokens_per_expert: Tensor

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__(d_model, n_experts, top_k)
        self.register_buffer("expert_bias", torch.zeros(n_experts))
        # integers: a model cast to bfloat16 would stop counting at 256
        self.register_buffer("tokens_per_expert", torch.zeros(n_experts, dtype=torch.int64))

    def forward(self, x: Tensor) -> Logged:
        """Weights, indices and the scores of all experts [T, E]; in training the load is counted."""
        logits = self.logits(x)
        scores = logits.sigmoid()
        indices = (scores.detach() + self.expert_bias).topk(self.top_k, dim=-1).indices
        if self.training:
            self.count(torch.zeros_like(scores, dtype=torch.int64).scatter(-1, indices, 1).sum(-2))
        return self.weigh(logits.gather(-1, indices)), indices, scores

    def weigh(self, chosen: Tensor) -> Tensor:
        """route_norm=True: the chosen scores sum to 1."""
        return normalized_sigmoid(chosen)

    def count(self, load: Tensor) -> None:
        """Add up the load of the micro-batches of a step."""
        self.tokens_per_expert.add_(load)

    @torch.no_grad()
    def update_bias(self) -> None:
        """Move the bias against the load since the last update, and reset the count (arXiv 2408.15664, algorithm 1)."""
        load = self.tokens_per_expert.to(self.expert_bias.dtype)
        step = torch.sign(load.mean() - load) * BIAS_STEP
        self.expert_bias.add_(step - step.mean())
        self.tokens_per_expert.zero_()


@mistake(3, "weight-sum", "top_k_not_normalized", seen="pytorch/torchtitan #1448")
class UnnormalizedSigmoid(TorchtitanRouter):
    """Sigmoid weights are not normalized, in a model that claims they are."""

    def weigh(self, chosen: Tensor) -> Tensor:
        return chosen.sigmoid()


@mistake(19, "micro-batches", seen="pytorch/torchtitan PR#1304")
class BiasMovesInForward(TorchtitanRouter):
    """The balancing bias is updated in forward, once per micro-batch."""

    def count(self, load: Tensor) -> None:
        super().count(load)
        self.update_bias()


@mistake(29, "eval-state", seen="PrimeIntellect-ai/prime-rl PR#2953")
class CountsEvaluation(TorchtitanRouter):
    """The load that moves the bias counts the tokens of an evaluation too."""

    def forward(self, x: Tensor) -> Logged:
        weights, indices, scores = super().forward(x)
        if not self.training:
            self.count(torch.bincount(indices.flatten(), minlength=self.n_experts))
        return weights, indices, scores
