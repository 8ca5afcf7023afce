"""The shipped mutants of the parameterization: mistakes that people made, one at a time."""

import math
from collections.abc import Callable, Iterable

from mue_check.mutants.mutant import Mutant
from mue_check.rules import Prescription, Role, get_rule
from mue_check.rules.roles import HIDDEN
from mue_check.spec import REFERENCE_HEAD_WIDTH, Experts

Change = Callable[[Prescription], Prescription]


def _set(roles: Iterable[Role], **factors: float) -> Change:
    """Give these roles these factors, where the target has them."""
    chosen = tuple(roles)

    def change(p: Prescription) -> Prescription:
        for role in chosen:
            if role in p.factors:
                p = p.with_factors(role, **factors)
        return p

    return change


def _times(role: Role, factor: str, by: Callable[[Prescription], float]) -> Change:
    """Multiply one factor of one role by a number that depends on the target."""

    def change(p: Prescription) -> Prescription:
        if role not in p.factors:
            return p
        return p.with_factors(role, **{factor: getattr(p[role], factor) * by(p)})

    return change


def _both(*changes: Change) -> Change:
    def change(p: Prescription) -> Prescription:
        for one in changes:
            p = one(p)
        return p

    return change


def _everywhere(factor: str, by: Callable[[Prescription], float]) -> Change:
    return _both(*(_times(role, factor, by) for role in Role))


def _depth_ratio(p: Prescription) -> float:
    return p.target.model.depth / p.reference.model.depth


def _width_ratio(p: Prescription) -> float:
    return p.target.model.width / p.reference.model.width


def _expansion(p: Prescription) -> float:
    return p.target.model.expansion


def _experts(p: Prescription) -> Experts:
    experts = p.target.model.feed_forward
    assert isinstance(experts, Experts)
    return experts


def _root_of_head_width(p: Prescription) -> float:
    return math.sqrt(p.target.model.head_width / REFERENCE_HEAD_WIDTH)


def _activated(p: Prescription) -> float:
    return float(_experts(p).activated)


def _drift_factor(p: Prescription) -> float:
    """sqrt(rho_B / rho_D), by which learning rate and decay follow batch and duration."""
    return math.sqrt(p.reference.steps / p.target.steps)


def _base_shape_missing(p: Prescription) -> Prescription:
    """Without base shapes the scaling library believes that target and reference are one: standard init, no factors."""
    factors = get_rule("standard").prescribe(p.reference, p.target).factors
    return Prescription(rule=p.rule, reference=p.reference, target=p.target, factors=factors)


_FFN_OUT = (Role.FFN_DOWN, Role.EXPERT_DOWN, Role.SHARED_DOWN)

MUTANTS = (
    Mutant(
        name="hidden_lr_unscaled",
        summary="hidden matrices keep the reference's learning rate",
        ladder="width",
        caught_by="scales",
        law="weight.ffn_up change at step 1",
        mutate=_set(HIDDEN, lr=1.0),
    ),
    Mutant(
        name="scheduler_overwrites_groups",
        summary="after the first step the scheduler gives every group the base learning rate",
        ladder="width",
        caught_by="scales",
        law="ffn_branch change",
        flaw="scheduler_overwrites_groups",
        seen="gpt-neox",
    ),
    Mutant(
        name="attention_by_root_of_head_width",
        summary="attention logits scaled by 1/sqrt(d_head) while d_head grows",
        ladder="width_of_heads",
        caught_by="scales",
        law="attention_logits rms at init",
        mutate=_times(Role.ATTENTION_QKV, "forward_multiplier", _root_of_head_width),
        seen="mixle #258",
    ),
    Mutant(
        name="weight_decay_not_compensated",
        summary="hidden decay unscaled across width while the learning rate falls",
        ladder="width",
        caught_by="audit",
        mutate=_set(HIDDEN, weight_decay=1.0),
        seen="OLMo",
    ),
    Mutant(
        name="unembedding_forms_mixed",
        summary="readout init of one form (1/rho_d) with the multiplier of the other (1/rho_d)",
        ladder="width",
        caught_by="scales",
        law="logits rms at init",
        mutate=_times(Role.UNEMBEDDING, "init_std", lambda p: 1 / _width_ratio(p)),
        seen="gpt-neox #1087",
    ),
    Mutant(
        name="base_shape_missing",
        summary="no base shapes: everything stays standard",
        ladder="width",
        caught_by="scales",
        law="logits change",
        mutate=_base_shape_missing,
        seen="mup #41",
    ),
    Mutant(
        name="residual_multiplier_missing",
        summary="branches are added without 1/m_L",
        ladder="depth",
        caught_by="scales",
        law="ffn_branch rms at init",
        mutate=_both(*(_times(role, "forward_multiplier", _depth_ratio) for role in (Role.ATTENTION_OUT, *_FFN_OUT))),
    ),
    Mutant(
        name="residual_multiplier_doubled",
        summary="branches are added with 1/m_L twice",
        ladder="depth",
        caught_by="scales",
        law="ffn_branch rms at init",
        mutate=_both(
            *(
                _times(role, "forward_multiplier", lambda p: 1 / _depth_ratio(p))
                for role in (Role.ATTENTION_OUT, *_FFN_OUT)
            )
        ),
    ),
    Mutant(
        name="residual_multiplier_on_one_branch",
        summary="1/m_L on the feed-forward branch alone",
        ladder="depth",
        caught_by="scales",
        law="attention_branch rms at init",
        mutate=_times(Role.ATTENTION_OUT, "forward_multiplier", _depth_ratio),
    ),
    Mutant(
        name="router_in_unscaled_group",
        summary="the router keeps the reference's learning rate",
        ladder="width_of_mixture",
        caught_by="scales",
        law="weight.router change at step 1",
        mutate=_set([Role.ROUTER], lr=1.0),
    ),
    Mutant(
        name="experts_by_backbone_ratio",
        summary="experts scaled as if their active width were the backbone's: neither A nor down-init",
        ladder="activated_experts",
        caught_by="scales",
        law="branch scale at init",
        mutate=_both(
            _times(Role.EXPERT_DOWN, "forward_multiplier", _expansion),
            _times(Role.EXPERT_DOWN, "init_std", lambda p: _expansion(p) ** -0.5),
        ),
    ),
    Mutant(
        name="A_missing",
        summary="the branch without A = d / H_act",
        ladder="activated_experts",
        caught_by="scales",
        law="branch scale at init",
        mutate=_times(Role.EXPERT_DOWN, "forward_multiplier", _expansion),
    ),
    Mutant(
        name="R_missing",
        summary="the normalized routed sum without R = a",
        ladder="activated_experts",
        caught_by="scales",
        law="branch scale at init",
        mutate=_set([Role.ROUTER], forward_multiplier=1.0),
    ),
    Mutant(
        name="R_on_shared_branch",
        summary="R scales the shared experts too",
        ladder="shared_experts",
        caught_by="scales",
        law="branch scale at init",
        mutate=_times(Role.SHARED_DOWN, "forward_multiplier", _activated),
    ),
    Mutant(
        name="A_from_all_experts",
        summary="A = d / (N h) in place of d / (a h)",
        ladder="activated_experts",
        caught_by="scales",
        law="branch scale at init",
        mutate=_times(Role.EXPERT_DOWN, "forward_multiplier", lambda p: _experts(p).activated / _experts(p).total),
    ),
    Mutant(
        name="down_init_missing",
        summary="the down-projection's init without sqrt(H_act / d)",
        ladder="activated_experts",
        caught_by="scales",
        law="branch scale at init",
        mutate=_times(Role.EXPERT_DOWN, "init_std", lambda p: _expansion(p) ** -0.5),
    ),
    Mutant(
        name="down_init_twice",
        summary="the down-projection's init with H_act / d",
        ladder="activated_experts",
        caught_by="scales",
        law="branch scale at init",
        mutate=_times(Role.EXPERT_DOWN, "init_std", lambda p: _expansion(p) ** 0.5),
    ),
    Mutant(
        name="groups_summed_with_R_a",
        summary="each group normalized by itself, so the sum is G, and still R = a",
        ladder="routing_hybrids",
        caught_by="scales",
        law="branch scale at init",
        mutate=_times(
            Role.ROUTER,
            "forward_multiplier",
            lambda p: _experts(p).weight_sum or 1.0,
        ),
    ),
    *(
        Mutant(
            name=f"{value}_not_moved_with_{change}",
            summary=f"{value.replace('_', ' ')} as if {change} had not changed",
            ladder=ladder,
            caught_by="audit",
            mutate=mutate,
        )
        for change, ladder in (("batch", "batch_at_fixed_tokens"), ("duration", "duration_at_fixed_batch"))
        for value, mutate in (
            ("eps", _everywhere("eps", _drift_factor)),
            ("betas", _set(Role, one_minus_beta=1.0)),
            ("weight_decay", _everywhere("weight_decay", lambda p: 1 / _drift_factor(p))),
        )
    ),
)
