"""Values that act on each parameter after a scheduler step, judged against the prescribed ones."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from mue_check.audit.prescribed import Prescribed, Slot
from mue_check.audit.report import VALUES, Findings, Offence
from mue_check.audit.restore import preserved
from mue_check.audit.schedule import Walk, walk_schedule, when
from mue_check.audit.setup import SetUp
from mue_check.audit.updates import Update, measure_updates, stand_ins
from mue_check.judge.audit import RELATIVE_TOLERANCE
from mue_check.rules import Role
from mue_check.rules.roles import EMBEDDINGS, VECTORS


def judge_steps(
    setup: SetUp, prescribed: Prescribed, where: Mapping[str, tuple[int, ...]], found: Findings
) -> dict[str, Update]:
    """Values that act on each parameter after a scheduler step, with LR as it is at the schedule's factor 1."""
    parameters = dict(setup.model.named_parameters(remove_duplicate=False))
    held = [p for group in setup.groups for p in group["params"]]
    with preserved(setup, weights=False), stand_ins(held):
        walk = walk_schedule(setup, lambda: measure_updates(setup))
    _judge_schedule(setup, walk, found)
    factors, updates = walk.factors(walk.at), walk.measured
    out, reasons = {}, dict[str, list[str]]()
    for name, slot in prescribed.slots.items():
        if not where[name]:
            continue
        group, update = where[name][0], updates[id(parameters[name])]
        out[name] = update
        if update.why:
            reasons.setdefault(update.why, []).append(name)
            continue
        factor, peak = factors[group], math.nan if walk.peaks is None else walk.peaks[group]
        if factor == 0:
            # the schedule stays at 0, so the group's word is all there is
            update = Update(lr=peak)
        elif walk.peaks is None:
            update = replace(update, lr=math.nan)
        elif update.lr and not math.isnan(factor):
            update = replace(update, lr=update.lr / factor)
        if walk.momenta:
            update = replace(update, beta1=math.nan)
        out[name] = update
        if not slot.conflict:
            stated = {"lr": peak, "weight_decay": setup.groups[group].get("weight_decay", 0.0)}
            found.offences += _values(name, slot, update, stated)
    for why, names in reasons.items():
        found.unjudged.append(
            f"LR, weight decay, eps and betas of {len(names)} parameters, the first {names[0]}: {why}"
        )
    _note_undecayed(prescribed, out, found)
    return out


def _note_undecayed(prescribed: Prescribed, values: Mapping[str, Update], found: Findings) -> None:
    if not prescribed.base.weight_decay:
        return
    undecayed = [prescribed.slots[n].role for n, u in values.items() if u.weight_decay == 0]
    for roles, what in ((VECTORS, "norm gains and biases"), (EMBEDDINGS, "embeddings")):
        count = sum(role in roles for role in undecayed)
        if count:
            found.notes.append(f"{count} {what} are not decayed: right if the reference's were not")


def _judge_schedule(setup: SetUp, walk: Walk[dict[int, Update]], found: Findings) -> None:
    given = "the scheduler" if setup.schedulers else "a scheduler that was not given"
    if walk.trouble:
        found.unjudged.append(walk.trouble)
    apart = walk.apart()
    if apart:
        says = f"groups are moved apart {apart}; a schedule must move all by one factor"
        found.offences.append(Offence(check="scheduler", parameter="(groups)", says=says))
    elif walk.peaks is None:
        found.unjudged.append(
            f"learning rates: {given} still raises them after {walk.steps} steps and does not say to where"
        )
    elif any(walk.peaks) and not any(any(rate > 0 for rate in rates) for rates in walk.rates[min(1, walk.steps) :]):
        found.unjudged.append(f"{given} keeps every learning rate at 0 for {walk.steps} steps")
    elif walk.at:
        factor = f"x {walk.factor(walk.at):.4g} {when(walk.at)}"
        most = f", at most x {walk.largest:.4g}" if not math.isclose(walk.largest, walk.factor(walk.at)) else ""
        found.notes.append(f"{given} moves all groups alike over {walk.steps} steps: {factor}{most}")
    elif not setup.schedulers and any("initial_lr" in group for group in setup.groups):
        found.notes.append(f"{given} has set all groups to x {walk.factor(0):.4g} of their initial rates")
    if walk.momenta:
        low, high = walk.momenta
        found.unjudged.append(
            f"beta1: {given} moves it from {low:.4g} to {high:.4g}, and the rule speaks of a constant one"
        )


def _values(name: str, slot: Slot, update: Update, stated: Mapping[str, float]) -> Iterator[Offence]:
    """Offences in the values of one parameter; ``stated`` is what its group says where a step may do otherwise."""
    for value in VALUES[1:]:
        measured, wanted = getattr(update, value), getattr(slot.row, value)
        if math.isnan(measured) or math.isclose(measured, wanted, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-15):
            continue
        if value == "weight_decay" and _may_go_undecayed(slot) and measured == 0 == stated[value]:
            continue
        says = ""
        if value in stated and not math.isclose(measured, stated[value], rel_tol=RELATIVE_TOLERANCE):
            says = f"the group says {stated[value]:.4g}, and this is what its step does"
            if value == "weight_decay" and abs(measured) < 1e-6:
                says = f"the group says {stated[value]:.4g}, and its step has no decoupled decay (an L2 term is none)"
        yield Offence(check=value, parameter=name, role=slot.label, measured=measured, prescribed=wanted, says=says)


def _may_go_undecayed(slot: Slot) -> bool:
    """Many leave gains, biases and embeddings out of decay in every model: then the reference's went without too."""
    return slot.role in VECTORS | EMBEDDINGS and str(Role.UNEMBEDDING) not in slot.label
