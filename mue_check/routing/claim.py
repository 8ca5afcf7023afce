"""RoutingSpec: the claim that the author of a router or a block makes about it, in standard terms."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from mue_check.errors import ClaimError
from mue_check.input_files import read_toml

Kind = Literal["token_choice", "capacity", "expert_choice", "variable"]
"""Each token takes a experts; it does, within the capacity of each expert; each expert takes its tokens; the number of
experts varies by token (ReLU gates, a threshold or cumulative probability, null experts)."""
Gate = Literal["sigmoid", "softmax", "any"]
Order = Literal["score_first", "select_first", "any"]
"""First the gate's function over all experts and then the choice, or the other way round."""
Field = Literal["weights", "indices", "combine", "mask", "logits", "scores", "requested", "aux"]
"""Parts of a router's return: [T, a] weights and indices, [T, E] weights (combine) and mask, ..."""
ATTRIBUTE = "routing_spec"
"""A module may carry its claim under this name: a RoutingSpec, or a mapping of its fields."""


@dataclass(frozen=True, kw_only=True)
class ExpertLayout:
    """Where a block keeps its experts' weights, if probing cannot find them.

    ``up``, ``gate`` and ``down`` are dotted names of parameters; ``gate`` is None without one, ``up`` alone may hold
    both (``fused`` = "concatenated", gate rows first, or "interleaved"). ``axes`` is the order of an expert's matrix:
    "out_in" or "in_out". ``activation`` names a function of torch.nn.functional.
    """

    up: str
    down: str
    gate: str | None = None
    axes: Literal["out_in", "in_out"] = "out_in"
    fused: Literal["none", "concatenated", "interleaved"] = "none"
    activation: str = "silu"

    def __post_init__(self) -> None:
        for name in ("up", "down", "activation"):
            _require(self, name, _name(getattr(self, name)), "a name")
        _require(self, "gate", self.gate is None or _name(self.gate), "a name")
        _require(self, "axes", self.axes in ("out_in", "in_out"), "out_in or in_out")
        _require(
            self, "fused", self.fused in ("none", "concatenated", "interleaved"), "none, concatenated, interleaved"
        )


@dataclass(frozen=True, kw_only=True)
class RoutingSpec:
    """A router's claim. The default is Complete-muE's own routing (arXiv 2605.23893).

    ``weight_sum``: the sum of a token's active weights: "one", "groups" (each group sums to 1), "free" (any sum), or a
    number (a routed scale, 2.5 in DeepSeek-V3); tokens that a capacity router drops do not count.
    ``activated_scale``: who multiplies by the number a of activated experts, which is Complete-muE's R: the "router"
    (its weights sum to a ``weight_sum``), the "block" (its factor is a ``route_scale``), or "none". ``top_k``: the one
    number of experts per token that the design allows. ``groups``: experts form this many groups of neighbors;
    ``per_group_k``: each token takes this many of each; ``group_limit``: its experts come from at most this many
    groups, ranked by their best score or the sum of their two best (``group_rank``; None claims neither).
    ``null_experts``, with kind "variable": columns and indices from E on are experts that add nothing ("zero") or their
    input ("identity"); a token takes a experts in all, and the claimed sum includes theirs; None claims nothing of
    them. ``capacity_factor``: an expert takes at most ceil(factor * T * a / E) tokens. ``selection_bias``: dotted
    name of a buffer or parameter [E] that only the choice sees. ``apply_on``: weights multiply the experts' output or
    input. ``shared``: the block adds experts that see every token. ``route_scale``: a factor on the routed sum, outside
    the router; ``shared_scale``: one on the shared part. ``causal``: later tokens do not affect earlier ones.
    ``fp32_gate``: the gate computes in float32 in a model of any dtype; None claims nothing. ``auxiliary_loss``:
    "module:function", called with (logits of each layer, a tuple of [T, E]; E; a), or a dotted attribute that holds the
    last loss. ``router``: dotted name of the router inside a block. ``returns``: the place of each part in the router's
    return, by position, key or attribute, if dtype and shape are ambiguous.
    """

    kind: Kind = "token_choice"
    gate: Gate = "any"
    order: Order = "any"
    weight_sum: Literal["one", "groups", "free"] | float = "one"
    activated_scale: Literal["none", "router", "block"] = "none"
    top_k: int | None = None
    groups: int = 1
    per_group_k: int | None = None
    group_limit: int | None = None
    group_rank: Literal["max", "top2_sum"] | None = None
    null_experts: Literal["zero", "identity"] | None = None
    capacity_factor: float | None = None
    selection_bias: str | None = None
    apply_on: Literal["output", "input"] = "output"
    shared: bool = False
    route_scale: float = 1.0
    shared_scale: float = 1.0
    causal: bool = True
    fp32_gate: bool | None = None
    auxiliary_loss: str | None = None
    router: str | None = None
    returns: Mapping[Field, int | str] = field(default_factory=dict)
    experts: ExpertLayout | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("kind", Kind), ("gate", Gate), ("order", Order)):
            _require(self, name, getattr(self, name) in get_args(allowed), f"one of {', '.join(get_args(allowed))}")
        _require(self, "apply_on", self.apply_on in ("output", "input"), "output or input")
        for name in ("shared", "causal"):
            _require(self, name, isinstance(getattr(self, name), bool), "true or false")
        _require(self, "fp32_gate", self.fp32_gate is None or isinstance(self.fp32_gate, bool), "true or false")
        for name in ("selection_bias", "auxiliary_loss", "router"):
            _require(self, name, getattr(self, name) is None or _name(getattr(self, name)), "a name")
        _require(
            self, "experts", self.experts is None or isinstance(self.experts, ExpertLayout), "a table: up, down, ..."
        )
        number = isinstance(self.weight_sum, int | float) and not isinstance(self.weight_sum, bool)
        named = self.weight_sum in ("one", "groups", "free")
        _require(self, "weight_sum", named or (number and _positive(self.weight_sum)), "one, groups, free or a number")
        _require(self, "activated_scale", self.activated_scale in ("none", "router", "block"), "none, router or block")
        if self.activated_scale == "router":
            _require(self, "weight_sum", number or self.weight_sum == "one", "one or a number with activated_scale")
        for name in ("groups", "top_k", "per_group_k", "group_limit"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            _require(self, name, whole or (value is None and name != "groups"), "a whole number of at least 1")
        for name in ("route_scale", "shared_scale", "capacity_factor"):
            value = getattr(self, name)
            _require(self, name, value is None or _positive(value), "a number above 0")
        if self.group_limit is not None:
            _require(self, "group_limit", self.group_limit <= self.groups, f"at most groups={self.groups}")
        _require(self, "group_rank", self.group_rank in (None, "max", "top2_sum"), "max or top2_sum")
        _require(self, "null_experts", self.null_experts in (None, "zero", "identity"), "zero or identity")
        if self.null_experts is not None:
            _require(self, "null_experts", self.kind == "variable", "given with kind='variable' alone")
        if self.per_group_k is not None and self.top_k is not None:
            _require(self, "top_k", self.top_k == self.per_group_k * self.groups, "groups * per_group_k")
        if self.kind == "capacity":
            _require(self, "capacity_factor", self.capacity_factor is not None, "given for kind='capacity'")
        places = isinstance(self.returns, Mapping) and all(
            key in get_args(Field) and (_name(place) or (type(place) is int and place >= 0))
            for key, place in self.returns.items()
        )
        _require(self, "returns", places, f"a table from {', '.join(get_args(Field))} to positions, keys or attributes")

    @property
    def independent(self) -> bool:
        """Whether each token chooses independently of the others."""
        return self.kind in ("token_choice", "variable")

    @property
    def fixed_activated(self) -> int | None:
        """The one number of activated experts that is claimed; None where any number will do."""
        return self.groups * self.per_group_k if self.per_group_k else self.top_k

    def takes(self, total: int, activated: int) -> bool:
        """Whether a token has a choice of ``activated`` experts among ``total`` at all."""
        size, rest = divmod(total, self.groups)
        reach = size * (self.group_limit or self.groups)
        return rest == 0 and activated <= reach and (self.group_limit is None or size >= 2)

    def at(self, activated: int) -> "RoutingSpec":
        """The same claim for one number of activated experts, which is then part of the sum or the scale."""
        if self.activated_scale == "router":
            return replace(self, activated_scale="none", weight_sum=activated * (self.expected_sum() or 1.0))
        if self.activated_scale == "block":
            return replace(self, activated_scale="none", route_scale=activated * self.route_scale)
        return self

    def expected_sum(self) -> float | None:
        """The claimed sum of a token's active weights, before an ``activated_scale``; None if any sum is claimed."""
        if self.weight_sum == "free":
            return None
        if self.weight_sum == "groups":
            return float(self.groups)
        return 1.0 if self.weight_sum == "one" else float(self.weight_sum)

    def __str__(self) -> str:
        default = RoutingSpec()
        shown = {k: v for k, v in asdict(self).items() if v != getattr(default, k) or k in ("kind", "weight_sum")}
        return ", ".join(f"{key}={value}" for key, value in shown.items())


def read_claim(path: Path) -> RoutingSpec:
    """The claim in a TOML file: fields of RoutingSpec at the top level, [returns] and [experts] as tables."""
    return claim_of(read_toml(path, f"claim {path}", ClaimError), str(path))


def claim_of(values: Mapping[str, Any] | RoutingSpec, where: str) -> RoutingSpec:
    """A claim from a mapping of its fields; ClaimError names an unknown field."""
    if isinstance(values, RoutingSpec):
        return values
    if not isinstance(values, Mapping):
        raise ClaimError(f"{where}: a RoutingSpec or a mapping of its fields, not {type(values).__name__}")
    values = dict(values)
    try:
        if isinstance(values.get("experts"), Mapping):
            known = _known(values["experts"], ExpertLayout, f"{where} [experts]")
            missing = [key for key in ("up", "down") if key not in known]
            if missing:
                raise ClaimError(f"{where} [experts]: {missing[0]} is missing")
            values["experts"] = ExpertLayout(**known)
        return RoutingSpec(**_known(values, RoutingSpec, where))
    except TypeError as error:
        raise ClaimError(f"{where}: {error}") from None


def _known(values: Mapping[str, Any], owner: type, where: str) -> dict[str, Any]:
    names = [f.name for f in fields(owner)]
    for key in values:
        if key not in names:
            raise ClaimError(f"{where}: unknown field {key!r}; known are {', '.join(names)}")
    return dict(values)


def _require(owner: ExpertLayout | RoutingSpec, name: str, ok: bool, allowed: str) -> None:
    if not ok:
        raise ClaimError(f"{type(owner).__name__}.{name}={getattr(owner, name)!r}: must be {allowed}")


def _name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
