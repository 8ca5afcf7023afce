"""The parameter groups and initial values that a rule prescribes for a real model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mue_check.audit.initial import initial_gains
from mue_check.audit.prescribed import ModelPrescription
from mue_check.audit.report import ParameterGroup
from mue_check.audit.setup import AuditError
from mue_check.audit.sharded import draw_normal, gathered
from mue_check.errors import unknown
from mue_check.rules import HyperParameters, Prescription, Role
from mue_check.rules.roles import VECTORS

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

    Every trainable parameter is in exactly one group. ``roles`` maps name patterns to roles, for unknown names;
    ``multipliers`` maps roles to the factors by which the model multiplies. What is not declared is measured in one
    forward pass on random tokens (``probe``). Multipliers that the model lacks are folded into init std, LR, weight
    decay and eps, so draw the weights with ``init_parameters`` too. For an optimizer without eps or betas ask for
    fewer ``keys``, such as ("lr", "weight_decay"); the rules are for AdamW all the same. AuditError: a trainable
    parameter without a role, a tied embedding that cannot be right.
    """
    for key in keys:
        if key not in KEYS:
            raise AuditError(unknown("key", key, KEYS))
    prescribed = _prescribe(model, prescription, base or HyperParameters(), roles, multipliers, probe)
    by_name = dict(model.named_parameters(remove_duplicate=False))
    out = []
    for group in prescribed_groups(prescribed):
        values = {key: getattr(group, key) for key in KEYS if key in keys}
        out.append({"params": [by_name[name] for name in group.parameters], "name": ", ".join(group.roles), **values})
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

    Arguments as in ``param_groups``; multipliers are probed before anything is drawn.
    """
    arguments = (model, prescription, base or HyperParameters(), roles, multipliers, probe)
    assignments = _prescribe(*arguments).assignments
    by_name, gains = dict(model.named_parameters(remove_duplicate=False)), initial_gains(model, assignments)
    for name, a in assignments.items():
        if a.role in VECTORS:
            by_name[name].fill_(gains.get(name, 0.0))
    # gains and scalar gates come first: they are part of the multiplier that the probe measures
    for name, expected in _prescribe(*arguments).expected.items():
        if expected.role not in VECTORS:
            draw_normal(by_name[name], expected.row.init_std, generator)


def prescribed_groups(prescribed: ModelPrescription) -> list[ParameterGroup]:
    """The fewest groups that give every trainable parameter its values, in the model's order."""
    members: dict[tuple[float, ...], list[str]] = {}
    for name, expected in prescribed.expected.items():
        if prescribed.assignments[name].trainable:
            row = expected.row
            # 12 digits: the order of a product must not make another group
            key = tuple(float(f"{v:.12g}") for v in (row.lr, row.weight_decay, row.eps, row.beta1, row.beta2))
            members.setdefault(key, []).append(name)
    return [
        ParameterGroup(
            roles=tuple(dict.fromkeys(prescribed.expected[name].label for name in names)),
            parameters=tuple(names),
            lr=lr,
            weight_decay=weight_decay,
            eps=eps,
            betas=(beta1, beta2),
        )
        for (lr, weight_decay, eps, beta1, beta2), names in members.items()
    ]


def _prescribe(
    model: nn.Module,
    prescription: Prescription,
    base: HyperParameters,
    roles: Mapping[str, str] | None,
    multipliers: Mapping[str, float] | None,
    probe: bool,
) -> ModelPrescription:
    with gathered(model):
        prescribed = ModelPrescription.of(model, prescription, base, roles=roles, multipliers=multipliers, probe=probe)
    missing = [a for a in prescribed.assignments.values() if a.role is None and a.trainable]
    if missing:
        first = f"{missing[0].name}: {missing[0].why}"
        raise AuditError(f"{len(missing)} parameters have no role; {first}; the roles are {', '.join(Role)}")
    for name, expected in prescribed.expected.items():
        if expected.conflict:
            raise AuditError(f"{name} is tied: {expected.conflict}")
    if not all(math.isfinite(e.row.lr) for e in prescribed.expected.values()):
        raise AuditError("a learning rate is not finite: check the multipliers")
    return prescribed
