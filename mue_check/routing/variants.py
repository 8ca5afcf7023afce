"""The routing variants by name: the function of each and its claim. A new variant is one function and one entry here.

Experts are selected by score plus selection bias; weights never see the bias (arXiv 2408.15664). There is no import of
torch here: specs, records and reports read names and claims without it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from mue_check.errors import SpecError, unknown
from mue_check.routing.choice import Choice, ExpertChoice, Mixture, TokenChoice, select
from mue_check.routing.claim import RoutingSpec

if TYPE_CHECKING:
    from torch import Tensor

BySigmoid = Callable[["Tensor", Mixture, "Tensor | None", bool], TokenChoice | None]
"""From logits [R, M, E], the mixture, the selection bias [R, E], and whether each group's weights sum to 1."""
BALANCES = ("none", "auxiliary_loss", "selection_bias")


@dataclass(frozen=True, kw_only=True)
class RouterInput:
    """What a router may look at: logits [R, M, E], a selection bias [R, E], the layer; and for content_blind a hash of
    each place [R, M] and how often a token draws each expert on average [E] (``content_blind.expected_draws``).

    ``by_sigmoid`` may make the choice by sigmoid score in another way, or leave it by returning None."""

    logits_RME: Tensor
    bias_RE: Tensor | None = None
    place_RM: Tensor | None = None
    layer: int = 0
    expected_E: Tensor | None = None
    by_sigmoid: BySigmoid | None = None

    def chosen_by_sigmoid(self, experts: Mixture, *, normal: bool = False) -> TokenChoice:
        """The best sigmoid scores, as ``select`` chooses; ``normal``: each group's weights sum to 1."""
        if self.by_sigmoid is not None:
            chosen = self.by_sigmoid(self.logits_RME, experts, self.bias_RE, normal)
            if chosen is not None:
                return chosen
        chosen = select(self.logits_RME.sigmoid(), experts, self.bias_RE)
        if not normal:
            return chosen
        weights = chosen.weights.view(*chosen.weights.shape[:2], experts.groups, -1)
        return TokenChoice(normalized(weights).flatten(-2), chosen.indices)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way of choosing experts, built in or a user's.

    ``claim`` is what conformance checks and what a mixture's weights are judged by. ``grouped``: it can take a/G
    experts of each of a mixture's G groups, which then replace the groups of the claim. ``groups_at``: at (N, a), the
    design's own groups and from how many of them a token's experts come. ``shared``: experts of the published design
    that see every token. ``by_place``: the choice follows the place in the text, not the scores.
    """

    name: str
    claim: RoutingSpec
    choose: Callable[[RouterInput, Mixture], Choice] | None = None
    """None for a user's router, which is a module."""
    grouped: bool = True
    groups_at: Callable[[int, int], tuple[int, int]] | None = None
    shared: int = 0
    by_place: bool = False

    @property
    def scored(self) -> bool:
        """Whether tokens select by score, which a bias can move and a loss even out."""
        return self.claim.kind != "expert_choice" and not self.by_place

    @property
    def fixed_activated(self) -> int | None:
        """The one number of activated experts that the design has; None where any number will do."""
        return None if self.grouped else self.claim.fixed_activated

    def claim_at(self, total: int, activated: int, groups: int = 1) -> RoutingSpec:
        """The claim in a mixture of these sizes."""
        if self.groups_at is not None:
            groups, limit = self.groups_at(total, activated)
            return replace(self.claim, groups=groups, group_limit=limit if groups > 1 else None)
        if not self.grouped:
            return self.claim
        return replace(self.claim, groups=groups, per_group_k=activated // groups if groups > 1 else None)


def sigmoid_norm(given: RouterInput, experts: Mixture) -> TokenChoice:
    """Sigmoid scores, top a/G of each group, normalized over all a (arXiv 2605.23893, "global norm")."""
    if experts.groups == 1:
        return sigmoid_group_norm(given, experts)
    chosen = given.chosen_by_sigmoid(experts)
    return TokenChoice(normalized(chosen.weights), chosen.indices)


def sigmoid_group_norm(given: RouterInput, experts: Mixture) -> TokenChoice:
    """Sigmoid scores, top a/G of each group, each group's weights sum to 1 (arXiv 2605.23893)."""
    return given.chosen_by_sigmoid(experts, normal=True)


def softmax_norm(given: RouterInput, experts: Mixture) -> TokenChoice:
    """Softmax over all experts, top a/G of each group, normalized over all a (Mixtral, arXiv 2401.04088)."""
    logits_RME = given.logits_RME
    indices = select(logits_RME.detach().softmax(-1), experts, given.bias_RE).indices
    # equal to normalizing the probabilities, and finite where all selected ones are 0 in float32
    return TokenChoice(logits_RME.gather(-1, indices).softmax(-1), indices)


def switch(given: RouterInput, experts: Mixture) -> TokenChoice:
    """Softmax over all experts, the best one, weighted by its probability (arXiv 2101.03961)."""
    return select(given.logits_RME.softmax(-1), experts, given.bias_RE)


def moge(given: RouterInput, experts: Mixture) -> TokenChoice:
    """Softmax over all experts, top a/G of each group, weighted by probability (Pangu Pro MoE, arXiv 2505.21411)."""
    return select(given.logits_RME.softmax(-1), experts, given.bias_RE)


def sigmoid_mean(given: RouterInput, experts: Mixture) -> TokenChoice:
    """Sigmoid scores, top a/G of each group, each score over a (arXiv 2601.20205)."""
    chosen = given.chosen_by_sigmoid(experts)
    return TokenChoice(chosen.weights / experts.activated, chosen.indices)


DEEPSEEK_SCALE = 2.5
"""routed_scaling_factor (DeepSeek-V3, arXiv 2412.19437, configuration)."""


def deepseek_groups(total: int, activated: int) -> tuple[int, int]:
    """(groups, groups kept): the better half of four, or as many as a token needs; fewer than 16 experts are one."""
    return (4, max(2, math.ceil(activated / (total // 4)))) if total >= 16 and total % 4 == 0 else (1, 1)


def deepseek_v3(given: RouterInput, experts: Mixture) -> TokenChoice:
    """Sigmoid scores, top a within the best groups, normalized, times 2.5 (arXiv 2412.19437).

    A group ranks by the sum of its two best biased scores.
    """
    scores_RME = given.logits_RME.sigmoid()
    biased = scores_RME.detach() if given.bias_RE is None else scores_RME.detach() + given.bias_RE.unsqueeze(1)
    groups, kept = deepseek_groups(experts.total, experts.activated)
    if groups > 1:
        grouped = biased.view(*biased.shape[:2], groups, -1)
        best = grouped.topk(2, dim=-1).values.sum(-1).topk(kept, dim=-1).indices
        dropped = grouped.new_ones(grouped.shape[:-1]).scatter(-1, best, 0).bool()
        # -inf, not 0: a biased score may be negative, and 0 would beat it (vllm PR#13474)
        biased = grouped.masked_fill(dropped.unsqueeze(-1), -math.inf).flatten(-2)
    indices = biased.topk(experts.activated, dim=-1).indices
    return TokenChoice(normalized(scores_RME.gather(-1, indices)) * DEEPSEEK_SCALE, indices)


def expert_choice(given: RouterInput, experts: Mixture) -> ExpertChoice:
    """Each expert takes its C = M a / N tokens of highest softmax over experts (arXiv 2202.09368).

    It looks at all M tokens of the batch at once, later ones too: the model is not causal.
    """
    tokens = given.logits_RME.shape[1]
    capacity = min(tokens, max(1, math.ceil(tokens * experts.activated / experts.total)))
    weights, indices = given.logits_RME.softmax(-1).transpose(1, 2).topk(capacity, dim=-1)
    return ExpertChoice(weights, indices)


def content_blind(given: RouterInput, experts: Mixture) -> TokenChoice:
    """Experts drawn by a hash of sequence and place, weights 1/a: routing that learns nothing."""
    from mue_check.routing.content_blind import content_blind as draw

    if given.place_RM is None:
        raise ValueError("content_blind routes by place: pass place_RM=place_keys(tokens)")
    return draw(given.place_RM, given.layer, experts, given.logits_RME.dtype, given.expected_E)


def normalized(weights: Tensor) -> Tensor:
    """Weights that sum to 1 over the last axis."""
    return weights / weights.sum(-1, keepdim=True)


_SIGMOID = RoutingSpec(gate="sigmoid", fp32_gate=True, selection_bias="selection_bias")
_SOFTMAX = replace(_SIGMOID, gate="softmax")
_EXPERT_CHOICE = replace(_SOFTMAX, kind="expert_choice", weight_sum="free", causal=False, selection_bias=None)
_ALL = (
    Variant(name="sigmoid_norm", claim=_SIGMOID, choose=sigmoid_norm),
    Variant(
        name="sigmoid_group_norm",
        claim=replace(_SIGMOID, weight_sum="groups", groups=2, per_group_k=2),
        choose=sigmoid_group_norm,
    ),
    Variant(name="softmax_norm", claim=_SOFTMAX, choose=softmax_norm),
    Variant(name="switch", claim=replace(_SOFTMAX, weight_sum="free", top_k=1), choose=switch, grouped=False),
    Variant(
        name="deepseek_v3",
        claim=replace(_SIGMOID, weight_sum=DEEPSEEK_SCALE, groups=4, group_limit=2, group_rank="top2_sum"),
        choose=deepseek_v3,
        grouped=False,
        groups_at=deepseek_groups,
        shared=1,
    ),
    Variant(name="moge", claim=replace(_SOFTMAX, weight_sum="free", groups=2, per_group_k=1), choose=moge),
    Variant(name="expert_choice", claim=_EXPERT_CHOICE, choose=expert_choice, grouped=False),
    Variant(name="sigmoid_mean", claim=replace(_SIGMOID, weight_sum="free"), choose=sigmoid_mean),
    Variant(name="content_blind", claim=RoutingSpec(causal=False), choose=content_blind, by_place=True),
)
VARIANTS: dict[str, Variant] = {variant.name: variant for variant in _ALL}


class LoadedRouter(Protocol):
    """A user's router that this process has loaded (``models.user_router``)."""

    @property
    def variant(self) -> Variant:
        """Its name and claim."""


USER_ROUTERS: dict[str, LoadedRouter] = {}
"""Users' routers by name. A cell holds the name alone, so each process keeps what it has loaded."""
_USER_NAME = re.compile(r"[\w-]+-[0-9a-f]{8}")
"""No built-in name has a hyphen. A name of this form is a user's router, loaded here or not: records and reports are
read without it, and only training needs it."""


def is_users(name: str) -> bool:
    """Whether that is the name of a user's router."""
    return name not in VARIANTS and _USER_NAME.fullmatch(name) is not None


def get_variant(name: str) -> Variant:
    """The variant of that name; SpecError lists the known ones."""
    if name in VARIANTS:
        return VARIANTS[name]
    if name in USER_ROUTERS:
        return USER_ROUTERS[name].variant
    if is_users(name):
        return Variant(name=name, claim=RoutingSpec(weight_sum="free"), grouped=False)
    raise SpecError(unknown("router", name, VARIANTS))


def route(
    logits_RME: Tensor,
    experts: Mixture,
    *,
    bias_RE: Tensor | None = None,
    place_RM: Tensor | None = None,
    layer: int = 0,
    expected_E: Tensor | None = None,
    by_sigmoid: BySigmoid | None = None,
) -> Choice:
    """The choice of ``experts.router``."""
    given = RouterInput(
        logits_RME=logits_RME,
        bias_RE=bias_RE,
        place_RM=place_RM,
        layer=layer,
        expected_E=expected_E,
        by_sigmoid=by_sigmoid,
    )
    choose = get_variant(experts.router).choose
    if choose is None:
        raise SpecError(f"router {experts.router!r} is a user's: models.user_router calls it")
    return choose(given, experts)


def scores(logits_RME: Tensor, router: str) -> Tensor:
    """What experts are selected by, before any bias."""
    return logits_RME.softmax(-1) if get_variant(router).claim.gate == "softmax" else logits_RME.sigmoid()


def probabilities(logits_RME: Tensor, router: str) -> Tensor:
    """The router's scores as a distribution over experts; sigmoid scores are normalized, as DeepSeek-V3 does."""
    values = scores(logits_RME, router)
    return values if get_variant(router).claim.gate == "softmax" else normalized(values)
