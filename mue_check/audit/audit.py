"""The audit of a real set-up: each measurement asked once, each answer judged against the rule, and one report."""

from collections.abc import Collection, Iterator, Mapping

from torch import nn

from mue_check.audit.assign import Assignment, assign_roles, width_of
from mue_check.audit.forward import default_loss
from mue_check.audit.gains import first_gains
from mue_check.audit.groups import look_at, right_groups, with_ties
from mue_check.audit.initial import Initial, judge_initial, measure_initial
from mue_check.audit.membership import groups_of, judge_membership
from mue_check.audit.multipliers import contradictions, declared_multipliers, find_multipliers, unseen
from mue_check.audit.optimizer_step import judge_steps
from mue_check.audit.prescribed import Form, Prescribed, Slot
from mue_check.audit.report import VALUES, Findings, MultiplierRow, Offence, ParameterRow, Report
from mue_check.audit.scenario import scenarios_of
from mue_check.audit.setup import Loss, SetUp
from mue_check.audit.training import find_dead
from mue_check.audit.updates import Update
from mue_check.rules import HyperParameters, Role, about_expansion, get_rule
from mue_check.rules.roles import VECTORS
from mue_check.spec import Scenario


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
) -> Report:
    """Judge a freshly built model and its optimizer against a rule; everything is left as it was.

    ``optimizer`` and ``scheduler`` may be lists. ``target`` is read from ``model.config`` where it is not given; what
    a SPEC leaves out is the configuration's, then the reference's. ``base`` holds the reference's tuned values.
    ``roles`` maps name patterns to roles, ``multipliers`` roles to what the model multiplies by itself; a model may
    carry both as ``mue_check_roles`` and ``mue_check_multipliers``. ``loss`` returns a scalar to go backward from;
    without it, and with ``probe``, random tokens are tried. AuditError, SpecError and RuleError say what cannot be
    asked.
    """
    setup = SetUp.of(model, optimizer, scheduler, loss)
    source, goal, about_heads = scenarios_of(model, reference, target)
    prescription = get_rule(rule).prescribe(source, goal)
    assignments = assign_roles(model, roles)
    declared = declared_multipliers(model, multipliers)
    probed = look_at(model, assignments, prescription, probe=probe)
    assignments = with_ties(assignments, probed)
    present = find_multipliers(model, assignments, declared, probed)
    prescribed = Prescribed(prescription, base or HyperParameters(), assignments, present, normed=probed.normed)

    where = groups_of(setup)
    initial = measure_initial(model, prescribed)
    remarks = [about_heads, about_expansion(prescription), *_remarks(assignments, goal)]
    found = Findings(unjudged=[*probed.unjudged], notes=[*probed.notes, *filter(None, remarks)])
    for a in assignments.values():
        if a.role is None and a.trainable:
            found.offences.append(Offence(check="role", parameter=a.name, says=a.why))
    found.offences += judge_initial(prescribed, initial, first_gains(model, assignments))
    for role, said_, seen in contradictions(declared, probed):
        says = "declared, and a forward pass shows another"
        found.offences.append(
            Offence(check="multiplier", parameter="(model)", role=str(role), measured=seen, prescribed=said_, says=says)
        )
    hidden = unseen(declared, probed)
    if hidden:
        found.unjudged.append(
            f"routed experts are declared to be multiplied by {hidden[0]:.4g} (A R), and a forward pass shows "
            f"{hidden[1]:.4g} around their module: right if the rest is inside it"
        )
    _judge_forms(prescribed, found, probe=probe)
    values = judge_steps(setup, prescribed, where, found)
    idle = {name for name, update in values.items() if update.idle}
    moved = _judge_training(setup, assignments, idle, found, probe=probe)
    judge_membership(setup, assignments, where, moved, found)
    return Report(
        rule=prescription.rule,
        reference=str(source),
        target=str(goal),
        form=form_of(prescribed.forms),
        multipliers=tuple(_multipliers(prescribed)),
        rows=tuple(_rows(prescribed, where, initial, values)),
        offences=tuple(found.offences),
        unjudged=tuple(found.unjudged),
        notes=tuple(found.notes),
        groups=tuple(right_groups(prescribed)),
    )


def form_of(forms: tuple[Form, ...]) -> str:
    """Which form was judged: multipliers present, folded into the weights, both, or none wanted."""
    words = {f.word for f in forms} - {"none"}
    said = {
        "present": "present in the model",
        "folded": "folded into init std, LR, weight decay and eps",
        "partly folded": "partly folded into init std, LR, weight decay and eps",
        "missing": "missing",
    }
    told = [text for word, text in said.items() if word in words]
    if not told:
        return "no multiplier is wanted"
    return f"multipliers {told[0]}" if len(told) == 1 else "mixed: multipliers " + "; ".join(told)


def _remarks(assignments: Mapping[str, Assignment], goal: Scenario) -> Iterator[str]:
    """What is worth knowing of the model, and no offence."""
    frozen = [a.name for a in assignments.values() if not a.trainable]
    if frozen:
        yield f"{len(frozen)} frozen parameters (requires_grad=False), judged by their init alone: {frozen[0]}, ..."
    width = width_of(assignments)
    low = [a for a in assignments.values() if a.role is Role.ATTENTION_QKV and width not in (None, a.fan_in)]
    if low:
        yield (
            f"{len(low)} attention matrices begin at a rank and not at d, the first {low[0].name} (fan-in "
            f"{low[0].fan_in}): they are judged as attention, which is right where the rank grows with d"
        )
    blocks = sum(a.role is Role.ATTENTION_OUT for a in assignments.values())
    if blocks not in (0, goal.model.depth):
        yield f"the target has L={goal.model.depth}, and {blocks} blocks have an attention: 1/m_L goes by the target"


def _judge_forms(prescribed: Prescribed, found: Findings, *, probe: bool) -> None:
    blind, normed = [], []
    for form in prescribed.forms:
        if form.present.source == "assumed" and form.word not in ("none", "present"):
            blind.append(str(form.role))
        elif form.word == "missing" and form.role is Role.ATTENTION_QKV:
            name = next(n for n, a in prescribed.assignments.items() if a.role is form.role)
            cure = "a fused qkv cannot take it up, and no role is split: scale the logits in the model"
            says = f"the logits' scale over 1/sqrt(d_head), {_heads(prescribed)}; {cure}"
            found.offences.append(
                Offence(
                    check="multiplier",
                    parameter=name,
                    role=str(form.role),
                    measured=form.present.value,
                    prescribed=form.wanted,
                    says=says,
                )
            )
        elif form.word == "missing" and form.role in prescribed.normed:
            normed.append(str(form.role))
    if str(Role.ATTENTION_QKV) in blind:
        blind.remove(str(Role.ATTENTION_QKV))
        form = next(f for f in prescribed.forms if f.role is Role.ATTENTION_QKV)
        found.unjudged.append(
            f"attention logits must be scaled by {form.wanted:.4g}/sqrt(d_head) ({_heads(prescribed)}), and the model "
            "does not say its scale: declare the multiplier attention_qkv"
        )
    if blind:
        lines = found.unjudged if probe else found.notes
        lines.append(
            f"no forward multiplier was declared or could be seen on {', '.join(blind)}, and none is assumed: declare "
            "it, as 1 where the model has none"
        )
    if normed:
        found.unjudged.append(
            f"multipliers on {', '.join(normed)}: a norm ends their branches and undoes what a matrix takes up, and "
            "the rules are not written for that; m_L^-1 belongs behind it, in the model"
        )
    for name, slot in prescribed.slots.items():
        if slot.conflict:
            found.offences.append(Offence(check="tied", parameter=name, role=slot.label, says=slot.conflict))


def _heads(prescribed: Prescribed) -> str:
    p = prescribed.prescription
    return f"from the reference's dh={p.reference.model.head_width} to dh={p.target.model.head_width}"


def _judge_training(
    setup: SetUp,
    assignments: Mapping[str, Assignment],
    idle: Collection[str],
    found: Findings,
    *,
    probe: bool,
) -> frozenset[str]:
    """What a few steps of training reach; the names of the parameters that they move."""
    loss = setup.loss or (default_loss(setup.model, assignments) if probe else None)
    if loss is None:
        found.notes.append("no loss: dead parameters were not looked for")
        return frozenset()
    trained = find_dead(setup, assignments, idle, loss)
    found.offences += trained.offences
    found.notes += trained.notes
    if trained.failed and setup.loss is not None:
        found.unjudged.append(f"dead parameters: {trained.failed}")
    elif trained.failed:
        found.notes.append(f"dead parameters were not looked for, as there is no loss ({trained.failed})")
    return trained.moved


def _multipliers(prescribed: Prescribed) -> Iterator[MultiplierRow]:
    for form in prescribed.forms:
        if form.word != "none":
            yield MultiplierRow(
                role=str(form.role),
                wanted=form.wanted,
                present=form.present.value,
                source=form.present.source,
                form=form.word,
                fold=form.fold,
            )


def _rows(
    prescribed: Prescribed,
    where: Mapping[str, tuple[int, ...]],
    initial: Mapping[str, Initial],
    values: Mapping[str, Update],
) -> Iterator[ParameterRow]:
    for name, a in prescribed.assignments.items():
        slot = prescribed.slots.get(name)
        measured = {} if slot is None else {"init_std": _spread(slot, initial[name])}
        if name in values:
            measured |= {v: getattr(values[name], v) for v in VALUES[1:]}
        yield ParameterRow(
            parameter=name,
            role="" if slot is None else slot.label,
            shape=a.shape,
            fan_in=a.fan_in,
            groups=where[name],
            fold=1.0 if slot is None else slot.fold,
            measured=measured,
            prescribed={} if slot is None else {v: getattr(slot.row, v) for v in VALUES},
        )


def _spread(slot: Slot, initial: Initial) -> float:
    """Constants have none."""
    return initial.largest - initial.least if slot.role in VECTORS else initial.rms
