"""Values that act on each parameter after a scheduler step, judged against the prescribed ones."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from mue_check.audit.prescribed import Prescribed, Slot
from mue_check.audit.report import VALUES, Findings, Offence
from mue_check.audit.restore import preserved
from mue_check.audit.schedule import Moment, initial_rates, moment_now, step_schedule
from mue_check.audit.setup import SetUp
from mue_check.audit.updates import Update, measure_updates, stand_ins
from mue_check.judge.audit import RELATIVE_TOLERANCE
from mue_check.rules.roles import VECTORS

SCHEDULER_STEPS = 100
"""How far the schedule is looked at; a warm-up that hands over later is not seen to its end."""


def judge_steps(
    setup: SetUp, prescribed: Prescribed, where: Mapping[str, tuple[int, ...]], found: Findings
) -> dict[str, Update]:
    """Values that act on each parameter after a scheduler step, with LR as it is at the schedule's factor 1."""
    parameters = dict(setup.model.named_parameters(remove_duplicate=False))
    groups, initial = setup.groups, initial_rates(setup)
    moments: list[Moment] = []
    updates: dict[int, Update] = {}
    measured_at: Moment | None = None
    held = [p for group in groups for p in group["params"]]
    with preserved(setup, weights=False), stand_ins(held):
        for moment in step_schedule(setup, SCHEDULER_STEPS):
            if isinstance(moment, str):
                found.unjudged.append(moment)
                break
            moments.append(moment)
            if measured_at is None and any(f > 0 for f in moment.factors):
                measured_at, updates = moment, measure_updates(setup)
        if measured_at is None:
            updates = measure_updates(setup)
        if not setup.schedulers and any("initial_lr" in group for group in groups):
            # a scheduler that was not handed over has bent them already
            moments.append(moment_now(setup, 0))
            measured_at = moments[0] if any(f > 0 for f in moments[0].factors) else None
    _judge_schedule(moments, measured_at, found)
    out, reasons = {}, dict[str, list[str]]()
    for name, slot in prescribed.slots.items():
        if not where[name]:
            continue
        group, update = where[name][0], updates[id(parameters[name])]
        if update.why:
            reasons.setdefault(update.why, []).append(name)
            out[name] = update
            continue
        factor = measured_at.factors[group] if measured_at else 1.0
        if moments and measured_at is None:
            update = Update(lr=initial[group])  # the schedule stays at 0, so the group's word is all there is
        elif update.lr and not math.isnan(factor):
            update = replace(update, lr=update.lr / factor)
        out[name] = update
        if not slot.conflict:
            stated = {"lr": initial[group], "weight_decay": groups[group].get("weight_decay", 0.0)}
            found.offences += _values(name, slot, update, stated)
    for why, names in reasons.items():
        found.unjudged.append(
            f"LR, weight decay, eps and betas of {len(names)} parameters, the first {names[0]}: {why}"
        )
    undecayed = [n for n, u in out.items() if prescribed.slots[n].role in VECTORS and u.weight_decay == 0]
    if undecayed and prescribed.base.weight_decay:
        found.notes.append(f"{len(undecayed)} norm gains and biases are not decayed: right if the reference's were not")
    return out


def _judge_schedule(moments: list[Moment], measured_at: Moment | None, found: Findings) -> None:
    apart = next((m for m in moments if not m.together), None)
    if apart is not None:
        says = f"groups are moved apart {apart}; a schedule must move all by one factor"
        found.offences.append(Offence(check="scheduler", parameter="(groups)", says=says))
    elif moments and measured_at is None:
        found.unjudged.append(f"the scheduler keeps every learning rate at 0 for {len(moments)} steps")
    elif measured_at is not None and measured_at.step:
        factor = f"x {measured_at.factor:.4g} {measured_at.when}"
        found.notes.append(f"the scheduler moves all groups alike over {len(moments)} steps: {factor}")
    elif measured_at is not None:
        found.notes.append(
            f"a scheduler that was not given has set all groups to x {measured_at.factor:.4g} of their initial rates"
        )


def _values(name: str, slot: Slot, update: Update, stated: Mapping[str, float]) -> Iterator[Offence]:
    """Offences in the values of one parameter; ``stated`` is what its group says where a step may do otherwise."""
    for value in VALUES[1:]:
        measured, wanted = getattr(update, value), getattr(slot.row, value)
        if math.isnan(measured) or math.isclose(measured, wanted, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-15):
            continue
        if value == "weight_decay" and slot.role in VECTORS and measured == 0:
            continue
        says = ""
        if value in stated and not math.isclose(measured, stated[value], rel_tol=RELATIVE_TOLERANCE):
            says = f"the group says {stated[value]:.4g}, and this is what its step does"
            if value == "weight_decay" and abs(measured) < 1e-6:
                says = f"the group says {stated[value]:.4g}, and its step has no decoupled decay (an L2 term is none)"
        yield Offence(check=value, parameter=name, role=slot.label, measured=measured, prescribed=wanted, says=says)
