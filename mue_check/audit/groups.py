"""Parameter groups and initial values that a prescription asks for, made for a real model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mue_check.audit.assign import Assignment, assign_roles
from mue_check.audit.forward import default_forward
from mue_check.audit.multipliers import Multiplier, Probed, declared_multipliers, find_multipliers
from mue_check.audit.prescribed import Prescribed, Slot
from mue_check.audit.probe import probe_multipliers
from mue_check.audit.report import Group
from mue_check.audit.restore import preserved_model
from mue_check.audit.setup import AuditError, said
from mue_check.rules import HyperParameters, Prescription, Role

KEYS = ("lr", "weight_decay", "eps", "betas")


def param_groups(
    model: nn.Module,
    prescription: Prescription,
    base: HyperParameters | None = None,
    *,
    roles: Mapping[str, str] | None = None,
    multipliers: Mapping[str, float] | None = None,
    keys: Sequence[str] = KEYS,
    probe: bool = True,
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer: ``params``, ``name`` (the roles) and the prescribed ``keys``.

    Every trainable parameter is in exactly one group. ``roles`` maps name patterns to roles where names are not
    known; ``multipliers`` maps roles to what the model multiplies by itself. What is not declared is looked for with
    one forward pass on random tokens (``probe``), and multipliers that the model lacks are folded into init std, LR,
    weight decay and eps: draw the weights with ``init_parameters`` too. An optimizer that knows no eps or betas takes
    the groups with fewer ``keys``, such as ("lr", "weight_decay"); the rules are rules for AdamW all the same.
    AuditError: a trainable parameter without a role, a tied embedding that cannot be right.
    """
    unknown = set(keys) - set(KEYS)
    if unknown:
        raise AuditError(f"keys: unknown {', '.join(sorted(unknown))}; known are {', '.join(KEYS)}")
    prescribed = _prescribe(model, prescription, base or HyperParameters(), roles, multipliers, probe)
    by_name = dict(model.named_parameters(remove_duplicate=False))
    out = []
    for group in right_groups(prescribed):
        values = {"lr": group.lr, "weight_decay": group.weight_decay, "eps": group.eps, "betas": group.betas}
        chosen = {key: values[key] for key in KEYS if key in keys}
        out.append({"params": [by_name[name] for name in group.parameters], "name": ", ".join(group.roles), **chosen})
    return out


@torch.no_grad()
def init_parameters(
    model: nn.Module,
    prescription: Prescription,
    base: HyperParameters | None = None,
    *,
    roles: Mapping[str, str] | None = None,
    multipliers: Mapping[str, float] | None = None,
    generator: torch.Generator | None = None,
    probe: bool = True,
) -> None:
    """Draw every parameter as prescribed, in place: matrices normal, norm gains 1, biases 0.

    Arguments as in ``param_groups``; a multiplier is looked for before anything is drawn.
    """
    prescribed = _prescribe(model, prescription, base or HyperParameters(), roles, multipliers, probe)
    by_name = dict(model.named_parameters(remove_duplicate=False))
    for name, slot in prescribed.slots.items():
        if slot.role is Role.NORM_GAIN:
            by_name[name].fill_(1.0)
        elif slot.role is Role.BIAS:
            by_name[name].zero_()
        else:
            by_name[name].normal_(0.0, slot.row.init_std, generator=generator)


def right_groups(prescribed: Prescribed) -> list[Group]:
    """The fewest groups that give every trainable parameter its values, in the model's order."""
    found: dict[tuple[float, ...], list[tuple[Slot, Assignment]]] = {}
    for name, slot in prescribed.slots.items():
        if prescribed.assignments[name].trainable:
            row = slot.row
            values = (row.lr, row.weight_decay, row.eps, row.beta1, row.beta2)
            # 12 digits: products in another order are no other group
            key = tuple(float(f"{v:.12g}") for v in values)
            found.setdefault(key, []).append((slot, prescribed.assignments[name]))
    return [
        Group(
            roles=tuple(dict.fromkeys(slot.label for slot, _ in members)),
            parameters=tuple(a.name for _, a in members),
            lr=lr,
            weight_decay=weight_decay,
            eps=eps,
            betas=(beta1, beta2),
        )
        for (lr, weight_decay, eps, beta1, beta2), members in found.items()
    ]


def look_at(model: nn.Module, assignments: Mapping[str, Assignment], *, probe: bool) -> Probed:
    """What a forward pass on random tokens shows of the multipliers; a note where there could be none."""
    if not probe or any(p.is_meta for p in model.parameters()):
        return Probed()
    forward = default_forward(model, assignments)
    if forward is None:
        return Probed(notes=("no token embedding was found, so no forward pass was made to look for multipliers",))
    try:
        with preserved_model(model):
            return probe_multipliers(model, assignments, forward)
    except Exception as error:
        # the model is the user's own code, and may want other arguments
        return Probed(notes=(f"no forward pass on random tokens ({said(error)}): multipliers were not looked for",))


def _prescribe(
    model: nn.Module,
    prescription: Prescription,
    base: HyperParameters,
    roles: Mapping[str, str] | None,
    multipliers: Mapping[str, float] | None,
    probe: bool,
) -> Prescribed:
    assignments = assign_roles(model, roles)
    lost = [a for a in assignments.values() if a.role is None and a.trainable]
    if lost:
        raise AuditError(f"{len(lost)} parameters have no role; {lost[0].name}: {lost[0].why}")
    declared = declared_multipliers(model, multipliers)
    present: Mapping[Role, Multiplier] = find_multipliers(
        model, assignments, declared, look_at(model, assignments, probe=probe)
    )
    prescribed = Prescribed(prescription, base, assignments, present)
    for name, slot in prescribed.slots.items():
        if slot.conflict:
            raise AuditError(f"{name} is tied: {slot.conflict}")
    if not all(math.isfinite(s.row.lr) for s in prescribed.slots.values()):
        raise AuditError("a learning rate is not finite: look at the multipliers")
    return prescribed
