"""The optimizer: which groups hold each parameter, and which values its steps apply, against the prescribed ones."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn

from mue_check.audit.muon import judge_muon
from mue_check.audit.prescribed import Expected, ModelPrescription
from mue_check.audit.report import VALUES, AuditFindings
from mue_check.audit.restore import preserved
from mue_check.audit.roles import Assignment
from mue_check.audit.schedule import LONG, ScheduleTrace, follow_schedule, when
from mue_check.audit.setup import SetUp
from mue_check.audit.updates import EffectiveValues, stand_ins
from mue_check.judge.audit import RELATIVE_TOLERANCE
from mue_check.rules import Role
from mue_check.rules.roles import EMBEDDINGS, VECTORS

OPTIMIZER_VALUES = "LR, weight decay, eps and betas"


def groups_of(setup: SetUp) -> dict[str, tuple[int, ...]]:
    """Name -> the groups that list it or a copy of it, as often as they do; numbered through all optimizers."""
    where: dict[int, list[int]] = {}
    for i, group in enumerate(setup.groups):
        for p in group["params"]:
            where.setdefault(id(p), []).append(i)
    return {name: tuple(where.get(_stepped_as(setup, p), ())) for name, p in _named(setup).items()}


def judge_membership(
    setup: SetUp,
    assignments: Mapping[str, Assignment],
    where: Mapping[str, tuple[int, ...]],
    moved: Collection[str] | None,
    found: AuditFindings,
) -> None:
    """Report trainable parameters in no group or in two, and parameters in a group that are not the model's.

    ``moved`` changed in training, None if nothing was trained: an optimizer that holds copies and writes them back
    does train the model.
    """
    named = _named(setup)
    copied = {n: setup.copies[id(named[n])] for n in assignments if id(named[n]) in setup.copies}
    written = {n: copy for n, copy in copied.items() if moved is None or n in moved}
    held = {id(p) for p in (*setup.model.parameters(), *written.values())}
    other = [(i, p) for i, group in enumerate(setup.groups) for p in group["params"] if id(p) not in held]
    missing = [n for n, a in assignments.items() if a.trainable and (not where[n] or n in copied.keys() - written)]
    unknown = [name for name in missing if name in (moved or ())] if other else []
    if written and moved is None:
        found.unjudged.append(
            f"the optimizer steps copies of {len(written)} parameters, the first {next(iter(written))}: without a loss "
            "nothing shows that it writes them back"
        )
    for name in missing:
        if name not in unknown:
            a = assignments[name]
            stack = "a stack of experts, which matching by kind of module or by '.weight' misses: " if a.experts else ""
            found.add("group", name, a.role or "", f"{stack}in no parameter group")
    for name, groups in where.items():
        if name in assignments and len(groups) > 1:
            says = f"in {len(groups)} groups: {', '.join(map(str, groups))}"
            found.add("group", name, assignments[name].role or "", says)
    if unknown and len(unknown) == len(missing):
        found.unjudged.append(
            f"{OPTIMIZER_VALUES} of {len(unknown)} parameters, the first {unknown[0]}: the optimizer steps other "
            "tensors and writes these, and the audit does not read what acts on them"
        )
    elif other:
        i, first = other[0]
        says = f"{len(other)} parameters in groups are not the model's, the first in group {i}, {list(first.shape)}"
        if missing:
            says += ": was the optimizer built before the model was replaced, converted or wrapped?"
        found.add("group", "(optimizer)", says=says)


def _named(setup: SetUp) -> dict[str, nn.Parameter]:
    return dict(setup.model.named_parameters(remove_duplicate=False))


def _stepped_as(setup: SetUp, p: Tensor) -> int:
    """The id of the tensor in a group that stands for the parameter."""
    return id(setup.copies.get(id(p), p))


def judge_steps(
    setup: SetUp,
    prescribed: ModelPrescription,
    where: Mapping[str, tuple[int, ...]],
    found: AuditFindings,
    total: int | None,
) -> dict[str, EffectiveValues]:
    """Judge the values that act on each parameter after a scheduler step, with the schedule's factor taken out of LR.

    ``total``: the number of steps of the run, if it is stated. Returns the values by parameter name.
    """
    named = _named(setup)
    with preserved(setup, weights=False), stand_ins(setup):
        trace = follow_schedule(setup, total)
    moving = _judge_schedule(setup, trace, found)
    factors = trace.factors(trace.measured_at)
    out, reasons = {}, dict[str, list[str]]()
    for name, expected in prescribed.expected.items():
        if not where[name]:
            continue
        stepped, group = _stepped_as(setup, named[name]), where[name][0]
        out[name] = values = trace.updates[stepped]
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
        if values.is_muon:
            values = replace(values, lr=peak)
        values = replace(values, **cast(dict[str, Any], dict.fromkeys(moving, math.nan)))
        out[name] = values
        if not (expected.conflict or values.is_muon):
            stated = {"lr": peak, "weight_decay": setup.groups[group].get("weight_decay", 0.0)}
            _judge_values(name, expected, values, stated, found)
            _judge_late(name, expected, trace, stepped, group, found)
    for why, names in reasons.items():
        found.unjudged.append(f"{OPTIMIZER_VALUES} of {len(names)} parameters, the first {names[0]}: {why}")
    _judge_clipping(where, out, found)
    judge_muon(prescribed, out, found)
    if prescribed.base.weight_decay:
        undecayed = [prescribed.expected[name].role for name, values in out.items() if values.weight_decay == 0]
        for roles, what in ((VECTORS, "norm gains and biases"), (EMBEDDINGS, "embeddings")):
            count = sum(role in roles for role in undecayed)
            if count:
                found.notes.append(f"{count} {what} have no weight decay: correct if the reference's had none")
    return out


def _judge_schedule(setup: SetUp, trace: ScheduleTrace, found: AuditFindings) -> list[str]:
    """Report what the schedule does; returns the values that move through the run, which cannot be judged."""
    scheduler = "the scheduler" if setup.schedulers else "a scheduler that was not passed"
    if trace.trouble:
        found.unjudged.append(trace.trouble)
    divergence, steps, at, backwards = trace.divergence(), trace.steps, trace.measured_at, trace.runs_backwards()
    if divergence:
        found.add("scheduler", "(groups)", says=f"the factors of the groups diverge {divergence}; they must be equal")
    elif trace.peaks is None and not backwards:
        found.unjudged.append(
            f"learning rates: {scheduler} still raises them after {steps} steps and does not state their peak"
        )
    elif any(trace.peaks or ()) and not any(
        any(r > 0 for r in trace.rates(s)) for s in range(min(1, steps), steps + 1)
    ):
        found.unjudged.append(f"{scheduler} keeps every learning rate at 0 for {steps} steps")
    elif backwards:
        says = f"the learning rates rise {backwards}: the schedule runs backwards, or its warm-up is too long"
        found.add("scheduler", "(groups)", says=says)
    elif at:
        factor = f"x {trace.factor(at):.4g} {when(at)}"
        most = "" if math.isclose(trace.largest, trace.factor(at)) else f", at most x {trace.largest:.4g}"
        last = f", x {trace.factor(steps):.4g} at the end" if trace.whole else ""
        if not trace.whole and trace.rising > LONG:
            last = f"; they rise for {trace.rising} steps and never fall: state T to see whether they run backwards"
        found.notes.append(f"{scheduler} scales all groups equally over {steps} steps: {factor}{most}{last}")
    elif not setup.schedulers and any("initial_lr" in group for group in setup.groups):
        found.notes.append(f"{scheduler} has set all groups to x {trace.factor(0):.4g} of their initial rates")
    moving = []
    for change in trace.changes():
        if change.how == "rewritten":
            writer = "the scheduler" if setup.schedulers else "the optimizer's step"
            says = f"{writer} writes another {change.value} {change.says}; the rule's holds for the whole run"
            found.add("scheduler", "(groups)", says=says)
        elif change.how == "falls":
            found.notes.append(
                f"{change.value}: {scheduler} scales it equally in all groups, {change.says}: correct if the "
                "reference's fell in the same way"
            )
        else:
            found.unjudged.append(
                f"{change.value}: {scheduler} moves it {change.says}, and the rule assumes a constant {change.value}"
            )
            moving.append(change.value)
    return moving


def _judge_late(
    name: str, expected: Expected, trace: ScheduleTrace, stepped: int, group: int, found: AuditFindings
) -> None:
    """Report values that the last step applies and an early one did not, while the group states what it stated."""
    early, late = trace.updates[stepped], trace.late.get(stepped)
    first, last = trace.stated[trace.measured_at][group], trace.stated[-1][group]
    if late is None or late.why or not first.lr or not last.lr:
        return
    for value in VALUES[1:]:
        scale = last.lr / first.lr if value == "lr" else 1.0
        was, now = getattr(early, value) * scale, getattr(late, value)
        same = value == "lr" or getattr(first, value) == getattr(last, value)
        if same and not math.isclose(was, now, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-15):
            says = f"{when(trace.steps)}, where the group states what it stated at first"
            found.add(value, name, expected.label, says, measured=now / scale, prescribed=getattr(expected.row, value))


def _judge_clipping(
    where: Mapping[str, tuple[int, ...]], values: Mapping[str, EffectiveValues], found: AuditFindings
) -> None:
    """Report gradients that a step clips by a norm which is not that of all parameters."""
    known = {name: v.clips for name, v in values.items() if not (v.why or v.is_muon) and v.lr}
    if not any(known.values()):
        return
    groups: dict[int, list[float]] = {}
    for name, clips in known.items():
        groups.setdefault(where[name][0], []).append(clips)
    if _alike(known.values()):
        found.notes.append("the step clips the gradients by one norm over all parameters")
    elif all(_alike(clips) for clips in groups.values()):
        found.add(
            "clipping",
            "(groups)",
            says="the step clips the gradients of each group by the group's own norm, so that the groups' shares of "
            "the gradient change; clip by one norm over all parameters",
        )
    else:
        found.unjudged.append("the step clips the gradient of each parameter by itself, and no rule covers that")


def _alike(values: Collection[float]) -> bool:
    return max(values) - min(values) <= RELATIVE_TOLERANCE * max(values)


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
