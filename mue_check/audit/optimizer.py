"""The optimizer: which groups hold each parameter, and which values its steps apply, against the prescribed ones."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

from mue_check.audit.prescribed import Expected, ModelPrescription
from mue_check.audit.report import VALUES, AuditFindings
from mue_check.audit.restore import preserved
from mue_check.audit.roles import Assignment
from mue_check.audit.schedule import ScheduleTrace, follow_schedule, when
from mue_check.audit.setup import SetUp
from mue_check.audit.updates import EffectiveValues, stand_ins
from mue_check.judge.audit import RELATIVE_TOLERANCE
from mue_check.rules import Role
from mue_check.rules.roles import EMBEDDINGS, VECTORS

OPTIMIZER_VALUES = "LR, weight decay, eps and betas"


def groups_of(setup: SetUp) -> dict[str, tuple[int, ...]]:
    """Name -> the groups that list it, as often as they do; groups are numbered through all optimizers."""
    where: dict[int, list[int]] = {}
    for i, group in enumerate(setup.groups):
        for p in group["params"]:
            where.setdefault(id(p), []).append(i)
    return {name: tuple(where.get(id(p), ())) for name, p in setup.model.named_parameters(remove_duplicate=False)}


def judge_membership(
    setup: SetUp,
    assignments: Mapping[str, Assignment],
    where: Mapping[str, tuple[int, ...]],
    moved: Collection[str],
    found: AuditFindings,
) -> None:
    """Report trainable parameters in no group or in two, and parameters in a group that are not the model's.

    ``moved`` changed in training: an optimizer that holds copies and writes them back does train the model.
    """
    missing = [name for name, a in assignments.items() if a.trainable and not where[name]]
    of_model = {id(p) for p in setup.model.parameters()}
    other = [(i, p) for i, group in enumerate(setup.groups) for p in group["params"] if id(p) not in of_model]
    copied = [name for name in missing if name in moved] if other else []
    for name in missing:
        if name not in copied:
            a = assignments[name]
            stack = "a stack of experts, which matching by kind of module or by '.weight' misses: " if a.experts else ""
            found.add("group", name, a.role or "", f"{stack}in no parameter group")
    for name, groups in where.items():
        if name in assignments and len(groups) > 1:
            says = f"in {len(groups)} groups: {', '.join(map(str, groups))}"
            found.add("group", name, assignments[name].role or "", says)
    if copied and len(copied) == len(missing):
        found.unjudged.append(
            f"{OPTIMIZER_VALUES} of {len(copied)} parameters, the first {copied[0]}: the optimizer steps copies of "
            "them and writes these back, and the audit does not read what acts on a copy"
        )
    elif other:
        i, first = other[0]
        says = f"{len(other)} parameters in groups are not the model's, the first in group {i}, {list(first.shape)}"
        if missing:
            says += ": was the optimizer built before the model was replaced, converted or wrapped?"
        found.add("group", "(optimizer)", says=says)


def judge_steps(
    setup: SetUp, prescribed: ModelPrescription, where: Mapping[str, tuple[int, ...]], found: AuditFindings
) -> dict[str, EffectiveValues]:
    """Judge the values that act on each parameter after a scheduler step, with the schedule's factor taken out of LR.

    Returns them by parameter name.
    """
    parameters = dict(setup.model.named_parameters(remove_duplicate=False))
    with preserved(setup, weights=False), stand_ins([p for group in setup.groups for p in group["params"]]):
        trace = follow_schedule(setup)
    _judge_schedule(setup, trace, found)
    factors = trace.factors(trace.measured_at)
    out, reasons = {}, dict[str, list[str]]()
    for name, expected in prescribed.expected.items():
        if not where[name]:
            continue
        group, values = where[name][0], trace.updates[id(parameters[name])]
        out[name] = values
        if values.why:
            reasons.setdefault(values.why, []).append(name)
            continue
        factor, peak = factors[group], math.nan if trace.peaks is None else trace.peaks[group]
        if factor == 0:
            # the schedule stays at 0, so only the group's own statement is left
            values = EffectiveValues(lr=peak)
        elif trace.peaks is None:
            values = replace(values, lr=math.nan)
        elif values.lr and not math.isnan(factor):
            values = replace(values, lr=values.lr / factor)
        if trace.beta1_range:
            values = replace(values, beta1=math.nan)
        out[name] = values
        if not expected.conflict:
            stated = {"lr": peak, "weight_decay": setup.groups[group].get("weight_decay", 0.0)}
            _judge_values(name, expected, values, stated, found)
    for why, names in reasons.items():
        found.unjudged.append(f"{OPTIMIZER_VALUES} of {len(names)} parameters, the first {names[0]}: {why}")
    if prescribed.base.weight_decay:
        undecayed = [prescribed.expected[name].role for name, values in out.items() if values.weight_decay == 0]
        for roles, what in ((VECTORS, "norm gains and biases"), (EMBEDDINGS, "embeddings")):
            count = sum(role in roles for role in undecayed)
            if count:
                found.notes.append(f"{count} {what} have no weight decay: correct if the reference's had none")
    return out


def _judge_schedule(setup: SetUp, trace: ScheduleTrace, found: AuditFindings) -> None:
    scheduler = "the scheduler" if setup.schedulers else "a scheduler that was not passed"
    if trace.trouble:
        found.unjudged.append(trace.trouble)
    divergence, steps, at = trace.divergence(), trace.steps, trace.measured_at
    if divergence:
        found.add("scheduler", "(groups)", says=f"the factors of the groups diverge {divergence}; they must be equal")
    elif trace.peaks is None:
        found.unjudged.append(
            f"learning rates: {scheduler} still raises them after {steps} steps and does not state their peak"
        )
    elif any(trace.peaks) and not any(any(rate > 0 for rate in rates) for rates in trace.rates[min(1, steps) :]):
        found.unjudged.append(f"{scheduler} keeps every learning rate at 0 for {steps} steps")
    elif at:
        factor = f"x {trace.factor(at):.4g} {when(at)}"
        most = "" if math.isclose(trace.largest, trace.factor(at)) else f", at most x {trace.largest:.4g}"
        found.notes.append(f"{scheduler} scales all groups equally over {steps} steps: {factor}{most}")
    elif not setup.schedulers and any("initial_lr" in group for group in setup.groups):
        found.notes.append(f"{scheduler} has set all groups to x {trace.factor(0):.4g} of their initial rates")
    if trace.beta1_range:
        low, high = trace.beta1_range
        found.unjudged.append(
            f"beta1: {scheduler} moves it from {low:.4g} to {high:.4g}, and the rule assumes a constant beta1"
        )


def _judge_values(
    name: str, expected: Expected, values: EffectiveValues, stated: Mapping[str, float], found: AuditFindings
) -> None:
    """Judge the values of one parameter. ``stated`` is what its group states, where a step may do otherwise."""
    # many never decay gains, biases and embeddings: then the reference's were not decayed either
    optional = expected.role in VECTORS | EMBEDDINGS and str(Role.UNEMBEDDING) not in expected.label
    for value in VALUES[1:]:
        measured, wanted = getattr(values, value), getattr(expected.row, value)
        if math.isnan(measured) or math.isclose(measured, wanted, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-15):
            continue
        if value == "weight_decay" and optional and measured == 0 == stated[value]:
            continue
        says = ""
        if value in stated and not math.isclose(measured, stated[value], rel_tol=RELATIVE_TOLERANCE):
            says = f"the group states {stated[value]:.4g}, but its step applies this"
            if value == "weight_decay" and abs(measured) < 1e-6:
                says = f"the group states {stated[value]:.4g}, but its step has no decoupled decay (L2 does not count)"
        found.add(value, name, expected.label, says, measured=measured, prescribed=wanted)
