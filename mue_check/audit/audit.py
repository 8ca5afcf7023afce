"""The audit of a real set-up: measure once, judge against the rule, and make one report."""

from collections.abc import Iterator, Mapping

from torch import nn

from mue_check.audit.dead_parameters import judge_training
from mue_check.audit.groups import prescribed_groups
from mue_check.audit.initial import InitialValues, initial_gains, judge_copies, judge_initial, measure_initial
from mue_check.audit.multipliers import contradictions, unconfirmed
from mue_check.audit.optimizer import groups_of, judge_membership, judge_steps
from mue_check.audit.prescribed import ModelPrescription
from mue_check.audit.report import VALUES, AuditFindings, AuditReport, MultiplierRow, ParameterRow
from mue_check.audit.roles import width_of
from mue_check.audit.rounding import judge_rounding
from mue_check.audit.scenario import scenarios_of, stated_steps
from mue_check.audit.setup import AuditError, Loss, SetUp
from mue_check.audit.sharded import gathered
from mue_check.audit.updates import EffectiveValues
from mue_check.errors import UnreadableError
from mue_check.global_state import preserved_globals
from mue_check.plain import require_plain
from mue_check.rules import HyperParameters, Role, about_expansion, get_rule
from mue_check.rules.roles import VECTORS
from mue_check.spec import Scenario
from mue_check.user_code import UserCodeExit, no_exit

_FORMS = {
    "present": "present in the model",
    "folded": "folded into init std, LR, weight decay and eps",
    "partly folded": "partly folded into init std, LR, weight decay and eps",
    "missing": "missing",
}


def audit_model(
    model: nn.Module,
    optimizer: object,
    scheduler: object = None,
    *,
    reference: Scenario | str,
    target: Scenario | str | None = None,
    rule: str = "complete_mue",
    base: HyperParameters | None = None,
    roles: Mapping[str, str] | None = None,
    multipliers: Mapping[str, float] | None = None,
    loss: Loss | None = None,
    probe: bool = True,
) -> AuditReport:
    """Judge a freshly built model and its optimizer against a rule, and leave both as they were.

    ``optimizer`` and ``scheduler`` may be lists. ``target`` defaults to ``model.config``; a SPEC takes what it leaves
    out from the configuration, then from the reference. ``base`` holds the reference's tuned values. ``roles`` maps
    name patterns to roles, ``multipliers`` roles to the factors by which the model multiplies; a model may carry both
    as ``mue_check_roles`` and ``mue_check_multipliers``. ``loss`` returns a scalar for backward; without it, and with
    ``probe``, the model predicts random tokens. AuditError, SpecError and RuleError say what cannot be audited.
    """
    setup = SetUp.of(model, optimizer, scheduler, loss)
    source, goal, head_width_note = scenarios_of(model, reference, target)
    prescription = get_rule(rule).prescribe(source, goal)
    try:
        with preserved_globals() as changes, no_exit(), gathered(setup.model, setup.optimizers):
            require_plain(setup.model)
            prescribed = ModelPrescription.of(
                model, prescription, base or HyperParameters(), roles=roles, multipliers=multipliers, probe=probe
            )
            total = stated_steps(reference, target, goal)
            report = _audit(setup, prescribed, head_width_note, total, probe=probe)
    except UnreadableError as error:
        raise AuditError(str(error)) from None
    except UserCodeExit as error:
        raise AuditError(f"the set-up raises {error}") from error
    if changes.functions:  # then no comparison can be trusted
        raise AuditError(f"the set-up replaces {', '.join(changes.functions)}")
    return report


def _audit(
    setup: SetUp, prescribed: ModelPrescription, head_width_note: str, total: int | None, *, probe: bool
) -> AuditReport:
    model, prescription = setup.model, prescribed.prescription
    assignments, probed = prescribed.assignments, prescribed.probed
    where, initial = groups_of(setup), measure_initial(model, prescribed)
    notes = filter(None, [*probed.notes, head_width_note, about_expansion(prescription), *_model_notes(prescribed)])
    found = AuditFindings(unjudged=[*probed.unjudged], notes=[*notes])
    for a in assignments.values():
        if a.role is None and a.trainable:
            found.add("role", a.name, says=a.why)
        elif a.swallowed:
            found.add("role", a.name, a.role or "", a.swallowed)
    if any(a.role is None and a.trainable for a in assignments.values()):
        found.notes.append(f"the roles are {', '.join(Role)}")
    judge_initial(prescribed, initial, initial_gains(model, assignments), found)
    judge_copies(model, assignments, found)
    _judge_multipliers(prescribed, found, probe=probe)
    values = judge_steps(setup, prescribed, where, found, total)
    judge_rounding(setup, prescribed, values, found)
    idle = {name for name, value in values.items() if value.idle}
    moved = judge_training(setup, assignments, idle, found, probe=probe)
    judge_membership(setup, assignments, where, moved, found)
    return AuditReport(
        rule=prescription.rule,
        reference=str(prescription.reference),
        target=str(prescription.target),
        form=_summary_of_forms(prescribed.forms),
        multipliers=tuple(f for f in prescribed.forms if f.form != "none"),
        rows=tuple(_parameter_rows(prescribed, where, initial, values)),
        offences=tuple(found.mismatches),
        unjudged=tuple(found.unjudged),
        notes=tuple(found.notes),
        groups=tuple(prescribed_groups(prescribed)),
    )


def _summary_of_forms(forms: tuple[MultiplierRow, ...]) -> str:
    """Which form was judged: multipliers present, folded into the weights, both, or none wanted."""
    present = {f.form for f in forms}
    texts = [text for form, text in _FORMS.items() if form in present]
    if not texts:
        return "no multiplier is wanted"
    return f"multipliers {texts[0]}" if len(texts) == 1 else "mixed: multipliers " + "; ".join(texts)


def _model_notes(prescribed: ModelPrescription) -> Iterator[str]:
    """Remarks on the model that do not affect the verdict."""
    assignments, depth = prescribed.assignments, prescribed.prescription.target.model.depth
    frozen = [a.name for a in assignments.values() if not a.trainable]
    if frozen:
        yield f"{len(frozen)} frozen parameters (requires_grad=False), judged by their init alone: {frozen[0]}, ..."
    width = width_of(assignments)
    low = [a for a in assignments.values() if a.role is Role.ATTENTION_QKV and width not in (None, a.fan_in)]
    if low:
        yield (
            f"{len(low)} attention matrices read from a low rank and not from d, the first {low[0].name} (fan-in "
            f"{low[0].fan_in}): they are judged as attention, which is correct if the rank grows with d"
        )
    blocks = sum(a.role is Role.ATTENTION_OUT for a in assignments.values())
    if blocks not in (0, depth):
        yield f"the target has L={depth}, but {blocks} blocks have attention: 1/m_L follows the target"


def _judge_multipliers(prescribed: ModelPrescription, found: AuditFindings, *, probe: bool) -> None:
    """Judge declared multipliers against probed ones, and report those that are missing or unknown."""
    declared, probed = prescribed.declared, prescribed.probed
    for role, claimed, measured in contradictions(declared, probed):
        says = "the forward pass shows another value than declared"
        found.add("multiplier", "(model)", str(role), says, measured=measured, prescribed=claimed)
    hidden = unconfirmed(declared, probed)
    if hidden:
        found.unjudged.append(
            f"routed experts are declared to be multiplied by {hidden[0]:.4g} (A R), and a forward pass shows "
            f"{hidden[1]:.4g} outside their module: correct if the rest is inside it"
        )
    unknown, normed = [], []
    p = prescribed.prescription
    heads = f"from the reference's dh={p.reference.model.head_width} to dh={p.target.model.head_width}"
    for form in prescribed.forms:
        attention = form.role == Role.ATTENTION_QKV
        if form.source == "assumed" and form.form not in ("none", "present"):
            if not attention:
                unknown.append(form.role)
                continue
            found.unjudged.append(
                f"attention logits must be scaled by {form.wanted:.4g}/sqrt(d_head) ({heads}), and the model does not "
                "state its scale: declare the multiplier attention_qkv"
            )
        elif form.form == "missing" and attention:
            name = next(n for n, a in prescribed.assignments.items() if a.role == form.role)
            says = (
                f"the logits' scale over 1/sqrt(d_head), {heads}; it cannot be folded into a fused qkv matrix: scale "
                "the logits in the model"
            )
            found.add("multiplier", name, form.role, says, measured=form.present, prescribed=form.wanted)
        elif form.form == "missing" and form.role in probed.normed:
            normed.append(form.role)
    if unknown:
        lines = found.unjudged if probe else found.notes
        lines.append(
            f"no forward multiplier was declared or could be measured on {', '.join(unknown)}, and none is assumed: "
            "declare it, as 1 if the model has none"
        )
    if normed:
        found.unjudged.append(
            f"multipliers on {', '.join(normed)}: their branches end in a norm, which undoes what a matrix absorbs, "
            "and the rules do not cover that; multiply by 1/m_L after the norm, in the model"
        )
    for name, expected in prescribed.expected.items():
        if expected.conflict:
            found.add("tied", name, expected.label, expected.conflict)


def _parameter_rows(
    prescribed: ModelPrescription,
    where: Mapping[str, tuple[int, ...]],
    initial: Mapping[str, InitialValues],
    values: Mapping[str, EffectiveValues],
) -> Iterator[ParameterRow]:
    for name, a in prescribed.assignments.items():
        expected = prescribed.expected.get(name)
        measured = {}
        if expected is not None:
            found = initial[name]
            measured["init_std"] = found.largest - found.least if expected.role in VECTORS else found.rms
        if name in values:
            measured |= {v: getattr(values[name], v) for v in VALUES[1:]}
        yield ParameterRow(
            parameter=name,
            role="" if expected is None else expected.label,
            shape=a.shape,
            fan_in=a.fan_in,
            groups=where[name],
            fold=1.0 if expected is None else expected.fold,
            measured=measured,
            prescribed={} if expected is None else {v: getattr(expected.row, v) for v in VALUES},
        )
