"""The mutants of the parameterization: mistakes that people made in the values a rule prescribes, one at a time."""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import NamedTuple

from mue_check.axes import Ladder, Rung
from mue_check.errors import SpecError
from mue_check.judge.verdict import Verdict, join
from mue_check.mutants.mutant import CheckOutcome, Mutant, summary_of
from mue_check.questions.drift import ask_drift, drift_arms, predicted_for
from mue_check.questions.scales import ask_scales
from mue_check.questions.values import ask_values
from mue_check.rules import Knob, Prescription, Role, get_rule
from mue_check.rules.roles import CONDITIONING, HIDDEN
from mue_check.spec import REFERENCE_HEAD_WIDTH, Experts, Scenario
from mue_check.study.folder import Study

CHECKS = ("scales", "audit", "drift")
"""``scales``: the laws of activations and weights. ``audit``: the values that arrive at the optimizer. ``drift``: the
learning-rate sweep, which is slow and misses much that the other two see at once."""

Change = Callable[[Prescription], Prescription]


def examine_rule(
    study: Study, mutant: Mutant, checks: Collection[str] = CHECKS, sweep: str = ""
) -> tuple[CheckOutcome, ...]:
    """Run ``checks`` on the mutant's ladder, except those that the ladder does not have.

    The drift is that on the ladder ``sweep``, or on the one of the tier where most is predicted.
    Ladders of batch and duration have no laws of scale, and a ladder made for its scales has no drift.
    """
    scales, usual = study.tier.ladder(mutant.ladder, "scales"), study.tier.ladder(mutant.ladder)
    ladder = usual or scales
    if ladder is None:
        raise SpecError(f"tier {study.tier.name} has no ladder {mutant.ladder!r} for mutant {mutant.name!r}")
    outcomes = []
    if scales and "scales" in checks:
        results = ask_scales(study, scales, mutant, flaw=mutant.flaw, finding=True).results
        failed = [result for result in results if result.verdict is Verdict.FAIL]
        # the output of a diffusion model is a velocity, which keeps its scale rather than its change
        velocity = mutant.finding.replace("logits change", "velocity rms").replace("logits", "velocity")
        names = (mutant.finding, velocity)
        naming = [result for result in failed if result.law.name in names]
        first = (naming or failed or results)[0]
        verdict = join(result.verdict for result in results)
        outcomes.append(_outcome("scales", verdict, str(first), named=not mutant.finding or bool(naming)))
    if "audit" in checks:
        values = ask_values(study, ladder, ladder.targets[-1], mutant, flaw=mutant.flaw, finding=True)
        outcomes.append(_outcome("audit", values.verdict, values.measured))
    if "drift" in checks:
        case = sharpest_drift(study, mutant, sweep) or (
            DriftCase(study, usual, usual.targets[-1], "lr") if usual else None
        )
        if case:
            found = ask_drift(
                case.study, case.ladder, case.target, knob=case.knob, mutate=mutant, flaw=mutant.flaw, finding=True
            )
            outcomes.append(_outcome("drift", found.verdict, found.measured))
    return tuple(outcomes)


def is_possible(study: Study, mutant: Mutant) -> bool:
    """Whether the models of the study can have the mistake: on its ladder it changes what is prescribed."""
    ladder = study.tier.ladder(mutant.ladder, "scales") or study.tier.ladder(mutant.ladder)
    if ladder is None or mutant.flaw:
        return ladder is not None
    right = [study.prescription(ladder, rung) for rung in ladder.targets]
    return any(mutant(p).factors != p.factors for p in right)


class DriftCase(NamedTuple):
    """One drift that the tier measures."""

    study: Study
    ladder: Ladder
    target: Rung
    knob: Knob


def sharpest_drift(study: Study, mutant: Mutant, name: str = "") -> DriftCase | None:
    """Of all drifts of the tier, or of one ladder, the one that the mistake should move farthest.

    None where no drift is predicted. Where several are equal within rounding, the one that trains fastest. SpecError if
    the tier has no such ladder.
    """
    found: list[tuple[float, float, DriftCase]] = []
    ladders = [x for axis in study.tier.axes for x in study.tier.ladders(axis) if name in ("", x.name)]
    if not ladders:
        raise SpecError(f"tier {study.tier.name} has no ladder {name!r} of drifts")
    for ladder in ladders:
        own = replace(study, corpus=study.task(ladder).corpus or study.corpus)
        for target in ladder.targets:
            for knob in ladder.knobs:
                arms = drift_arms(own, ladder, target, knob, mutant)
                octaves = abs(predicted_for(own, ladder, target, arms) or 0.0)
                found.append((-round(octaves, 6), target.work, DriftCase(own, ladder, target, knob)))
    best = min(found, key=lambda each: each[:2], default=None)
    return best[2] if best and best[0] else None


def _outcome(check: str, verdict: Verdict, measured: str, named: bool = True) -> CheckOutcome:
    return CheckOutcome(check=check, verdict=verdict, measured=measured, caught=verdict is Verdict.FAIL, named=named)


def mutant_rule(
    change: Change, *, ladder: str, law: str = "", name: str = "", summary: str = "", seen: str = "", flaw: str = ""
) -> Mutant:
    """A mutant that ``law`` must catch, or the audit of values where there is none; named as the change by default."""
    name = name or change.__name__

    return Mutant(
        name=name,
        summary=summary or summary_of(change),
        kind="rule",
        build=lambda p: replace(change(p), rule=name),
        caught_by="scales" if law else "audit",
        finding=law,
        seen=seen,
        ladder=ladder,
        flaw=flaw,
    )


def _mutant(ladder: str, law: str = "", *, seen: str = "", flaw: str = "") -> Callable[[Change], Mutant]:
    """A decorator: the function's name and docstring are the mutant's name and summary."""
    return lambda change: mutant_rule(change, ladder=ladder, law=law, seen=seen, flaw=flaw)


def _set(p: Prescription, roles: Iterable[Role], **factors: float) -> Prescription:
    """Give these roles these factors, where the target has them."""
    for role in roles:
        if role in p.factors:
            p = p.with_factors(role, **factors)
    return p


def _times(p: Prescription, roles: Iterable[Role], factor: str, by: float) -> Prescription:
    """Multiply one factor of these roles, where the target has them."""
    for role in roles:
        if role in p.factors:
            p = p.with_factors(role, **{factor: getattr(p[role], factor) * by})
    return p


def _times_down(p: Prescription, factor: str, by: float) -> Prescription:
    return _times(p, [Role.EXPERT_DOWN], factor, by)


def _depth_ratio(p: Prescription) -> float:
    return p.target.model.depth / p.reference.model.depth


def _experts(of: Scenario) -> Experts:
    """The experts of a model; a dense layer is one expert that is always active."""
    ffn = of.model.feed_forward
    return ffn if isinstance(ffn, Experts) else Experts(total=1, activated=1, hidden=ffn.hidden)


def _drift_factor(p: Prescription) -> float:
    """sqrt(rho_B / rho_D), by which learning rate and decay follow batch and duration."""
    return math.sqrt(p.reference.steps / p.target.steps)


_BRANCHES = (Role.ATTENTION_OUT, Role.FFN_DOWN, Role.EXPERT_DOWN, Role.SHARED_DOWN)
_BRANCH_SCALE = "branch scale at init"


@_mutant("width", "weight.ffn_up change at step 1")
def hidden_lr_unscaled(p: Prescription) -> Prescription:
    """Hidden matrices keep the reference's learning rate."""
    return _set(p, HIDDEN, lr=1.0)


@_mutant("width", "weight.modulation change at step 1")
def conditioning_lr_unscaled(p: Prescription) -> Prescription:
    """The hidden matrices of the conditioning keep the reference's learning rate."""
    return _set(p, CONDITIONING & HIDDEN, lr=1.0)


@_mutant("width", "weight.patch_embedding change at step 1")
def patch_embedding_as_hidden(p: Prescription) -> Prescription:
    """The patch embedding's learning rate falls with width, as in a library that takes every convolution for hidden."""
    return _times(p, [Role.PATCH_EMBEDDING], "lr", p.reference.model.width / p.target.model.width)


@_mutant("width", "weight.label_embedding change at step 1")
def label_table_as_hidden(p: Prescription) -> Prescription:
    """The label table's learning rate falls with width, though its input is one class."""
    return _times(p, [Role.LABEL_EMBEDDING], "lr", p.reference.model.width / p.target.model.width)


@_mutant("width", "ffn_branch change", flaw="scheduler_overwrites_groups", seen="gpt-neox")
def scheduler_overwrites_groups(p: Prescription) -> Prescription:
    """After the first step the scheduler gives every group the base learning rate."""
    return p


@_mutant("width_of_heads", "attention_logits rms at init", seen="mixle #258")
def attention_by_root_of_head_width(p: Prescription) -> Prescription:
    """Attention logits are scaled by 1/sqrt(d_head) while d_head grows."""
    root = math.sqrt(p.target.model.head_width / REFERENCE_HEAD_WIDTH)
    return _times(p, [Role.ATTENTION_QKV], "forward_multiplier", root)


@_mutant("width", seen="OLMo")
def weight_decay_not_compensated(p: Prescription) -> Prescription:
    """The decay of hidden matrices is unscaled across width while the learning rate falls."""
    return _set(p, HIDDEN, weight_decay=1.0)


@_mutant("width", "logits rms at init", seen="gpt-neox #1087")
def unembedding_forms_mixed(p: Prescription) -> Prescription:
    """The readout has the init of one form (1/rho_d) and the multiplier of the other (1/rho_d)."""
    return _times(p, [Role.UNEMBEDDING], "init_std", p.reference.model.width / p.target.model.width)


@_mutant("width", "logits change", seen="mup #41")
def base_shape_missing(p: Prescription) -> Prescription:
    """No base shapes: the library takes target and reference for one model, and everything stays standard."""
    factors = get_rule("standard").prescribe(p.reference, p.target).factors
    return Prescription(rule=p.rule, reference=p.reference, target=p.target, factors=factors)


@_mutant("depth", "ffn_branch rms at init")
def residual_multiplier_missing(p: Prescription) -> Prescription:
    """Branches are added without 1/m_L."""
    return _times(p, _BRANCHES, "forward_multiplier", _depth_ratio(p))


@_mutant("depth", "ffn_branch rms at init")
def residual_multiplier_doubled(p: Prescription) -> Prescription:
    """Branches are added with 1/m_L twice."""
    return _times(p, _BRANCHES, "forward_multiplier", 1 / _depth_ratio(p))


@_mutant("depth", "attention_branch rms at init")
def residual_multiplier_on_one_branch(p: Prescription) -> Prescription:
    """Only the feed-forward branch has 1/m_L."""
    return _times(p, [Role.ATTENTION_OUT], "forward_multiplier", _depth_ratio(p))


@_mutant("depth", "ffn_branch rms at init")
def residual_multiplier_on_attention_alone(p: Prescription) -> Prescription:
    """The feed-forward branch, dense or routed, is added without 1/m_L."""
    return _times(p, [Role.FFN_DOWN, Role.EXPERT_DOWN, Role.SHARED_DOWN], "forward_multiplier", _depth_ratio(p))


@_mutant("width_of_mixture", "weight.router change at step 1")
def router_in_unscaled_group(p: Prescription) -> Prescription:
    """The router keeps the reference's learning rate."""
    return _set(p, [Role.ROUTER], lr=1.0)


@_mutant("activated_experts", _BRANCH_SCALE)
def experts_by_backbone_ratio(p: Prescription) -> Prescription:
    """Experts are scaled as if their active width were the backbone's: neither A nor the down-projection's init."""
    p = _times_down(p, "forward_multiplier", p.target.model.expansion)
    return _times_down(p, "init_std", p.target.model.expansion**-0.5)


@_mutant("activated_experts", _BRANCH_SCALE)
def A_missing(p: Prescription) -> Prescription:
    """The branch lacks A = d / H_act."""
    return _times_down(p, "forward_multiplier", p.target.model.expansion)


@_mutant("activated_experts", _BRANCH_SCALE)
def R_missing(p: Prescription) -> Prescription:
    """The normalized routed sum lacks R = a."""
    return _set(p, [Role.ROUTER], forward_multiplier=1.0)


@_mutant("activated_experts", _BRANCH_SCALE)
def R_from_all_experts(p: Prescription) -> Prescription:
    """R = N instead of a."""
    return _times(p, [Role.ROUTER], "forward_multiplier", _experts(p.target).total / _experts(p.target).activated)


@_mutant("shared_experts", _BRANCH_SCALE)
def A_of_routed_alone(p: Prescription) -> Prescription:
    """A = d / (a h) instead of d / ((a + s) h)."""
    experts = _experts(p.target)
    by = 1 + experts.shared / experts.activated
    return _times(p, [Role.EXPERT_DOWN, Role.SHARED_DOWN], "forward_multiplier", by)


@_mutant("shared_experts", _BRANCH_SCALE)
def R_on_shared_branch(p: Prescription) -> Prescription:
    """R scales the shared experts too."""
    return _times(p, [Role.SHARED_DOWN], "forward_multiplier", _experts(p.target).activated)


@_mutant("activated_experts", _BRANCH_SCALE)
def A_from_all_experts(p: Prescription) -> Prescription:
    """A = d / (N h) instead of d / (a h)."""
    return _times_down(p, "forward_multiplier", _experts(p.target).activated / _experts(p.target).total)


@_mutant("capacity")
def experts_by_their_batch(p: Prescription) -> Prescription:
    """The experts' learning rate goes with the root of their share a/N of the tokens, but their data shrink, too."""
    share, before = (e.activated / e.total for e in (_experts(p.target), _experts(p.reference)))
    return _times(p, [Role.EXPERT_UP, Role.EXPERT_GATE, Role.EXPERT_DOWN], "lr", math.sqrt(share / before))


@_mutant("granularity", "ffn_branch change")
def down_by_own_fan_in(p: Prescription) -> Prescription:
    """The down-projection's learning rate goes with 1/h, its own number of inputs, as in a library of muP."""
    width = p.target.model.width / p.reference.model.width
    own = p.target.model.feed_forward.hidden / p.reference.model.feed_forward.hidden
    return _times(p, [Role.FFN_DOWN, Role.EXPERT_DOWN], "lr", width / own)


@_mutant("activated_experts", _BRANCH_SCALE)
def down_init_missing(p: Prescription) -> Prescription:
    """The down-projection's init lacks sqrt(H_act / d)."""
    return _times_down(p, "init_std", p.target.model.expansion**-0.5)


@_mutant("activated_experts", _BRANCH_SCALE)
def down_init_twice(p: Prescription) -> Prescription:
    """The down-projection's init has H_act / d instead of its square root."""
    return _times_down(p, "init_std", p.target.model.expansion**0.5)


@_mutant("routing_hybrids", _BRANCH_SCALE)
def groups_summed_with_R_a(p: Prescription) -> Prescription:
    """Each group is normalized separately, so the sum is G, and R is still a."""
    return _times(p, [Role.ROUTER], "forward_multiplier", _experts(p.target).weight_sum or 1.0)


@_mutant("batch_at_fixed_tokens")
def linear_scaling(p: Prescription) -> Prescription:
    """The learning rate goes with batch over duration, as for SGD, instead of its square root."""
    return _times(p, Role, "lr", _drift_factor(p))


MUTANTS = (
    *(value for value in tuple(globals().values()) if isinstance(value, Mutant)),
    *(
        mutant_rule(
            change,
            name=f"{value}_not_moved_with_{moved}",
            summary=f"{value.replace('_', ' ')} as if {moved} had not changed",
            ladder=ladder,
        )
        for moved, ladder in (("batch", "batch_at_fixed_tokens"), ("duration", "duration_at_fixed_batch"))
        for value, change in (
            ("eps", lambda p: _times(p, Role, "eps", _drift_factor(p))),
            ("betas", lambda p: _set(p, Role, one_minus_beta=1.0)),
            ("weight_decay", lambda p: _times(p, Role, "weight_decay", 1 / _drift_factor(p))),
        )
    ),
)
