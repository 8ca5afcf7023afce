"""The forward multipliers that a model already has: declared, probed, or read from its modules or configuration."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from mue_check.audit.probe import ProbeResult
from mue_check.audit.roles import Assignment
from mue_check.audit.scenario import config_of, router_is_normalized
from mue_check.audit.setup import AuditError, model_attribute
from mue_check.errors import with_article
from mue_check.judge.audit import RELATIVE_TOLERANCE
from mue_check.rules import Role, parse_role
from mue_check.rules.roles import DOWN, EMBEDDINGS

Source = Literal["assumed", "configuration", "module", "probed", "declared"]
CARRIERS = DOWN | EMBEDDINGS | {Role.ATTENTION_QKV, Role.ATTENTION_OUT, Role.ROUTER, Role.UNEMBEDDING}
"""Roles that can have a multiplier."""
_ROUTED = (Role.ROUTER, Role.EXPERT_DOWN)
"""R and A, whose product multiplies a routed expert's output."""


@dataclass(frozen=True, kw_only=True)
class Multiplier:
    """The factor by which the model multiplies a role's output, and where it was found.

    For attention_qkv it is the scale of the attention logits over 1/sqrt(d_head); for the router it is the sum of a
    token's active weights.
    """

    value: float = 1.0
    source: Source = "assumed"

    def times(self, other: "Multiplier") -> "Multiplier":
        """The product; its source is that of the first that is not assumed."""
        sources = [m.source for m in (self, other) if m.source != "assumed"]
        return Multiplier(value=self.value * other.value, source=sources[0] if sources else "assumed")


def declared_multipliers(model: nn.Module, given: Mapping[str, float] | None) -> dict[Role, float]:
    """Role -> number, validated; the model's own ``mue_check_multipliers`` if none are given. AuditError."""
    mapping = given if given is not None else model_attribute(model, "mue_check_multipliers") or {}
    if not isinstance(mapping, Mapping):
        raise AuditError(f"multipliers: must map roles to numbers, not be {with_article(type(mapping))}")
    out = {}
    for name, value in mapping.items():
        role = parse_role(name)
        if role not in CARRIERS:
            raise AuditError(f"multipliers: {role} has none; roles that can are {', '.join(sorted(CARRIERS))}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise AuditError(f"multipliers: {role}={value!r}: must be a number above 0")
        out[role] = float(value)
    return out


def find_multipliers(
    model: nn.Module, assignments: Mapping[str, Assignment], declared: Mapping[Role, float], probed: ProbeResult
) -> dict[Role, Multiplier]:
    """Role -> multiplier from the best source: declared, probed, module, configuration. Other roles have none."""
    found = {role: Multiplier(value=v, source="configuration") for role, v in _configured(model).items()}
    scale = _attention_scale(model, assignments)
    if scale is not None:
        found[Role.ATTENTION_QKV] = Multiplier(value=scale, source="module")
    known = {role: Multiplier(value=v, source="probed") for role, v in probed.values.items()}
    known |= {role: Multiplier(value=v, source="declared") for role, v in declared.items()}
    found |= known
    if probed.routed is not None and not all(role in declared for role in _ROUTED):
        # the probe shows the product of two multipliers: one may be known, and the other is the rest
        first, second = reversed(_ROUTED) if Role.EXPERT_DOWN in declared else _ROUTED
        found[first] = known.get(first, Multiplier(source="probed"))
        found[second] = Multiplier(value=probed.routed / found[first].value, source="probed")
    return found


def contradictions(declared: Mapping[Role, float], probed: ProbeResult) -> list[tuple[Role, float, float]]:
    """(role, declared, probed) where a forward pass shows another multiplier than declared."""
    pairs = [
        (role, value, probed.values[role])
        for role, value in declared.items()
        if role in probed.values and role not in probed.partial
    ]
    if probed.routed is not None and all(role in declared for role in _ROUTED):
        pairs.append((Role.EXPERT_DOWN, declared[Role.EXPERT_DOWN] * declared[Role.ROUTER], probed.routed))
    return [pair for pair in pairs if not math.isclose(pair[1], pair[2], rel_tol=RELATIVE_TOLERANCE)]


def unconfirmed(declared: Mapping[Role, float], probed: ProbeResult) -> tuple[float, float] | None:
    """(declared, probed) A R of stacked experts, if the probe shows another value outside their module.

    The rest may be inside the module, which the probe does not see.
    """
    if (
        probed.routed is not None
        or not any(role in declared for role in _ROUTED)
        or not all(role in probed.values for role in _ROUTED)
    ):
        return None
    claimed = math.prod(declared.get(role, probed.values[role]) for role in _ROUTED)
    outside = math.prod(probed.values[role] for role in _ROUTED)
    return None if math.isclose(claimed, outside, rel_tol=RELATIVE_TOLERANCE) else (claimed, outside)


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
    """The scale that attention modules state, over 1/sqrt(d_head); None if they state none or different ones."""
    found = set()
    for a in assignments.values():
        if a.role is not Role.ATTENTION_QKV:
            continue
        attention = model.get_submodule(a.name.removesuffix(".weight").rpartition(".")[0])
        scale = getattr(attention, "scaling", None)
        width = getattr(attention, "qk_head_dim", None) or getattr(attention, "head_dim", None)
        if not isinstance(scale, float) or not isinstance(width, int):
            return None
        found.add(round(scale * math.sqrt(width), 6))
    return found.pop() if len(found) == 1 else None
