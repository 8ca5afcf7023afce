"""The forward multipliers that a model has of its own: declared, found by probing, or read from its configuration."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from mue_check.audit.assign import Assignment
from mue_check.audit.probe import Probed
from mue_check.audit.scenario import config_of, router_is_normalized
from mue_check.audit.setup import AuditError
from mue_check.audit.wrapped import carried
from mue_check.judge.audit import RELATIVE_TOLERANCE
from mue_check.rules import Role, parse_role
from mue_check.rules.roles import DOWN, EMBEDDINGS

Source = Literal["assumed", "configuration", "module", "probed", "declared"]
CARRIERS = DOWN | EMBEDDINGS | {Role.ATTENTION_QKV, Role.ATTENTION_OUT, Role.ROUTER, Role.UNEMBEDDING}
"""Roles that a multiplier can belong to."""


@dataclass(frozen=True, kw_only=True)
class Multiplier:
    """What the model multiplies a role's output by, and how that is known.

    On attention_qkv it is the scale of the attention logits over 1/sqrt(d_head), on the router what the active
    weights of a token sum to.
    """

    value: float = 1.0
    source: Source = "assumed"

    def times(self, other: "Multiplier") -> "Multiplier":
        """Both, one after the other; as well known as the one that says something."""
        sources = [m.source for m in (self, other) if m.source != "assumed"]
        return Multiplier(value=self.value * other.value, source=sources[0] if sources else "assumed")


def declared_multipliers(model: nn.Module, given: Mapping[str, float] | None) -> dict[Role, float]:
    """Role -> number, checked; the model's own ``mue_check_multipliers`` where nothing is given. AuditError."""
    mapping = given if given is not None else carried(model, "mue_check_multipliers") or {}
    if not isinstance(mapping, Mapping):
        raise AuditError(f"multipliers: must map roles to numbers, not be a {type(mapping).__name__}")
    out = {}
    for name, value in mapping.items():
        role = parse_role(name)
        if role not in CARRIERS:
            raise AuditError(f"multipliers: {role} has none; those that can are {', '.join(sorted(CARRIERS))}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise AuditError(f"multipliers: {role}={value!r}: must be a number above 0")
        out[role] = float(value)
    return out


def find_multipliers(
    model: nn.Module, assignments: Mapping[str, Assignment], declared: Mapping[Role, float], probed: Probed
) -> dict[Role, Multiplier]:
    """The best known number for each role that carries one: declared, probed, by module or configuration, else 1."""
    read = {role: Multiplier(value=v, source="configuration") for role, v in _configured(model).items()}
    scale = _attention_scale(model, assignments)
    if scale is not None:
        read[Role.ATTENTION_QKV] = Multiplier(value=scale, source="module")
    seen = {role: Multiplier(value=v, source="probed") for role, v in probed.values.items()}
    said = {role: Multiplier(value=v, source="declared") for role, v in declared.items()}
    found = {**read, **seen, **said}
    if probed.routed is not None and not (Role.ROUTER in said and Role.EXPERT_DOWN in said):
        # of the two that make up what was seen, one may be known: the other is the rest
        known, rest = Role.ROUTER, Role.EXPERT_DOWN
        if Role.EXPERT_DOWN in said:
            known, rest = rest, known
        found[known] = {**seen, **said}.get(known, Multiplier(source="probed"))
        found[rest] = Multiplier(value=probed.routed / found[known].value, source="probed")
    return found


def contradictions(declared: Mapping[Role, float], probed: Probed) -> list[tuple[Role, float, float]]:
    """(role, declared, found) where a forward pass shows another number than was declared."""
    pairs = [
        (role, value, probed.values[role])
        for role, value in declared.items()
        if role in probed.values and role not in probed.inside
    ]
    if probed.routed is not None and Role.ROUTER in declared and Role.EXPERT_DOWN in declared:
        pairs.append((Role.EXPERT_DOWN, declared[Role.EXPERT_DOWN] * declared[Role.ROUTER], probed.routed))
    return [pair for pair in pairs if not math.isclose(pair[1], pair[2], rel_tol=RELATIVE_TOLERANCE)]


def unseen(declared: Mapping[Role, float], probed: Probed) -> tuple[float, float] | None:
    """(declared, seen) product of A and R on stacked experts, where a forward pass shows less around their module.

    The rest may be inside the module, where nobody looks.
    """
    pair = (Role.EXPERT_DOWN, Role.ROUTER)
    if (
        probed.routed is not None
        or not any(role in declared for role in pair)
        or not all(role in probed.values for role in pair)
    ):
        return None
    said = math.prod(declared.get(role, probed.values[role]) for role in pair)
    seen = math.prod(probed.values[role] for role in pair)
    return None if math.isclose(said, seen, rel_tol=RELATIVE_TOLERANCE) else (said, seen)


def _configured(model: nn.Module) -> dict[Role, float]:
    """Granite's four multipliers and DeepSeek's routed scale, from the configuration."""
    config = config_of(model)
    found: dict[Role, float] = {}
    if config is None:
        return found

    def number(name: str) -> float | None:
        value = getattr(config, name, None)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None

    if logits := number("logits_scaling"):
        found[Role.UNEMBEDDING] = 1 / logits
    if residual := number("residual_multiplier"):
        found |= dict.fromkeys((Role.ATTENTION_OUT, *DOWN), residual)
    if embedding := number("embedding_multiplier"):
        found[Role.TOKEN_EMBEDDING] = embedding
    routed = number("routed_scaling_factor")
    if routed and router_is_normalized(config):
        found[Role.ROUTER] = routed
    return found


def _attention_scale(model: nn.Module, assignments: Mapping[str, Assignment]) -> float | None:
    """What attention modules say of their own scale over 1/sqrt(d_head); None where they say nothing, or not alike."""
    found = set()
    for a in assignments.values():
        if a.role is not Role.ATTENTION_QKV:
            continue
        owner = model.get_submodule(a.name.removesuffix(".weight").rpartition(".")[0])
        scale = getattr(owner, "scaling", None)
        width = getattr(owner, "qk_head_dim", None) or getattr(owner, "head_dim", None)
        if not isinstance(scale, float) or not isinstance(width, int):
            return None
        found.add(round(scale * math.sqrt(width), 6))
    return found.pop() if len(found) == 1 else None
