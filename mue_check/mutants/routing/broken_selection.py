"""Mistakes in who is chosen and who is kept: rows 8, 9, 17, 18, 27 and 28 of the table."""

from dataclasses import replace

from torch import Tensor, nn

from mue_check.mutants.routing.blocks import ExpertChoiceBlock
from mue_check.mutants.routing.bug import Bug
from mue_check.mutants.routing.capacity import DeepSpeedRouter, SwitchCapacityRouter
from mue_check.mutants.routing.gates import CompleteMueRouter
from mue_check.mutants.routing.selection import DeepSeekV3Router, best_groups


class GroupsMaskedWithZero(DeepSeekV3Router):
    """Experts of other groups score 0, which beats a negative score of an allowed one."""

    def select(self, biased: Tensor) -> Tensor:
        """Right as long as every biased score is positive."""
        allowed = best_groups(biased, self.groups, self.group_limit)
        return biased.masked_fill(~allowed, 0.0).topk(self.top_k, dim=-1).indices


class InfeasibleGroups(DeepSeekV3Router):
    """Nobody looks whether the groups hold the choice: what is missing is filled from experts of -inf."""

    def validate(self) -> None:
        """Accept everything."""


class CapacityNeverReached(SwitchCapacityRouter):
    """The count runs over the axis of length 1: every request is the first of its expert."""

    def place(self, requested: Tensor) -> Tensor:
        """One dimension too far, since the tokens were flattened."""
        return requested.cumsum(dim=-2)


class CapacityByLogits(DeepSpeedRouter):
    """Capacity by logits with 0 for what was not requested: 0 beats a negative logit and takes its place unused."""

    not_requested = 0.0

    def priority(self, logits: Tensor) -> Tensor:
        """Logits: they order a token's experts as probabilities do, but not an expert's tokens."""
        return logits


class ExpertChoiceCalledCausal(ExpertChoiceBlock):
    """Expert choice in a language model: whether a token is taken depends on those that follow."""

    routing_spec = replace(ExpertChoiceBlock.routing_spec, causal=True)


class ZeroRouter(CompleteMueRouter):
    """All logits tie at the start: every token takes the experts that topk names first."""

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__(d_model, n_experts, top_k)
        nn.init.zeros_(self.weight)


SELECTION = (
    Bug(
        row=8,
        name="groups_masked_with_zero",
        summary="experts of masked groups score 0, so an allowed one with a negative biased score loses to them",
        seen="vllm-project/vllm PR#13474; sgl-project/sglang PR#3705",
        candidate="router",
        caught_by="group-limit",
        factory=GroupsMaskedWithZero,
        claim=DeepSeekV3Router.routing_spec,
        twin=DeepSeekV3Router,
    ),
    Bug(
        row=9,
        name="infeasible_groups",
        summary="a group limit that cannot hold the choice is accepted, and experts of -inf are selected",
        seen="huggingface/transformers #48647",
        candidate="router",
        caught_by="group-infeasible",
        factory=InfeasibleGroups,
        claim=DeepSeekV3Router.routing_spec,
        twin=DeepSeekV3Router,
    ),
    Bug(
        row=17,
        name="capacity_never_reached",
        summary="cumsum over the wrong axis: every request counts as its expert's first",
        seen="huggingface/transformers #48293",
        candidate="router",
        caught_by="capacity",
        factory=CapacityNeverReached,
        claim=SwitchCapacityRouter.routing_spec,
        twin=SwitchCapacityRouter,
    ),
    Bug(
        row=18,
        name="capacity_by_logits",
        summary="capacity by logits with 0 elsewhere: tokens that never asked take places, requests are dropped",
        seen="deepspeedai/DeepSpeed PR#7986",
        candidate="router",
        caught_by="capacity",
        factory=CapacityByLogits,
        claim=DeepSpeedRouter.routing_spec,
        twin=DeepSpeedRouter,
    ),
    Bug(
        row=27,
        name="expert_choice_called_causal",
        summary="expert choice in a causal model: a token's output depends on later ones",
        seen="piotrpiekos/MoSA #3; karpathy/nanochat #844",
        candidate="block",
        caught_by="causality",
        factory=ExpertChoiceCalledCausal,
        claim=ExpertChoiceCalledCausal.routing_spec,
        twin=ExpertChoiceBlock,
    ),
    Bug(
        row=28,
        name="zero_router",
        summary="a router of zeros: all logits tie, and every token takes the same experts",
        seen="zero-initialised routers",
        candidate="router",
        caught_by="load-at-init",
        factory=ZeroRouter,
        claim=CompleteMueRouter.routing_spec,
        twin=CompleteMueRouter,
    ),
)
