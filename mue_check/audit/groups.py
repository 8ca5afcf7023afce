"""Parameter groups and initial values that a prescription asks for, made for a real model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mue_check.audit.assign import Assignment, assign_roles
from mue_check.audit.forward import default_forward
from mue_check.audit.gains import first_gains
from mue_check.audit.multipliers import declared_multipliers, find_multipliers
from mue_check.audit.prescribed import Prescribed, Slot
from mue_check.audit.probe import Probed, probe_multipliers
from mue_check.audit.report import Group
from mue_check.audit.restore import preserved_model
from mue_check.audit.setup import AuditError, said
from mue_check.audit.wrapped import uncompiled
from mue_check.rules import HyperParameters, Prescription, Role
from mue_check.rules.roles import VECTORS
from mue_check.spec import Experts

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
    asked = (model, prescription, base or HyperParameters(), roles, multipliers, probe)
    assignments = _prescribe(*asked).assignments
    by_name, gains = dict(model.named_parameters(remove_duplicate=False)), first_gains(model, assignments)
    for name, a in assignments.items():
        if a.role in VECTORS:
            by_name[name].fill_(gains.get(name, 0.0))
    # gains and scalar gates count in what a branch is multiplied by, so that they come first
    for name, slot in _prescribe(*asked).slots.items():
        if slot.role not in VECTORS:
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


def look_at(
    model: nn.Module, assignments: Mapping[str, Assignment], prescription: Prescription, *, probe: bool
) -> Probed:
    """What a forward pass on random tokens shows of the multipliers; a note where there could be none."""
    if not probe or any(p.is_meta for p in model.parameters()):
        return Probed()
    forward = default_forward(model, assignments)
    if forward is None:
        return Probed(notes=("no token embedding was found, so no forward pass was made to look for multipliers",))
    ffn = prescription.target.model.feed_forward
    try:
        with preserved_model(model), uncompiled():
            return probe_multipliers(model, assignments, forward, ffn.total if isinstance(ffn, Experts) else None)
    except Exception as error:
        # the model is the user's own code, and may want other arguments
        return Probed(notes=(f"no forward pass on random tokens ({said(error)}): multipliers were not looked for",))


def with_ties(assignments: Mapping[str, Assignment], probed: Probed) -> dict[str, Assignment]:
    """The same, where the embedding's matrix was seen to give the logits too."""
    return {
        name: replace(a, also=(*a.also, Role.UNEMBEDDING)) if probed.tied and a.role is Role.TOKEN_EMBEDDING else a
        for name, a in assignments.items()
    }


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
    probed = look_at(model, assignments, prescription, probe=probe)
    assignments = with_ties(assignments, probed)
    present = find_multipliers(model, assignments, declared, probed)
    prescribed = Prescribed(prescription, base, assignments, present, normed=probed.normed)
    for name, slot in prescribed.slots.items():
        if slot.conflict:
            raise AuditError(f"{name} is tied: {slot.conflict}")
    if not all(math.isfinite(s.row.lr) for s in prescribed.slots.values()):
        raise AuditError("a learning rate is not finite: look at the multipliers")
    return prescribed
