"""What a mixture of transformers claims: its configuration, and where that says nothing, the code of its classes.

The code is only read for what it says it does, such as the name of its gate function. Whether it does that is what the
checks measure.
"""

import inspect
import re
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mue_check.errors import ClaimError
from mue_check.routing.claim import Gate, RoutingSpec
from mue_check.routing.hugging_face import ACTIVATED, Family, tensors_of

_SIZES = {"d_model": 24, "d_expert": 16, "n_experts": 16, "top_k": 2}
_SCALE = re.compile(r"self\.(\w*rout\w*_scal\w*)")
"""The routed scale, by the names that models give it (routed_scaling_factor, route_scale)."""


def block_claim(family: Family) -> RoutingSpec:
    """The claim of the family's block; ClaimError where the block cannot be called with tokens alone."""
    if family.trouble:
        raise ClaimError(f"{family.trouble}; try mue_check router")
    return _claim(family)


def router_claim(family: Family) -> RoutingSpec:
    """The claim of the family's router alone; ClaimError where the router is a linear layer and the block routes."""
    claim = _claim(family)
    if claim.router is None:
        raise ClaimError(f"{family.block.__name__}.{family.router} is a linear layer: the block routes, check that")
    return replace(claim, router=None, shared=False, route_scale=1.0, apply_on="output")


def _claim(family: Family) -> RoutingSpec:
    activated = _activated(family)
    block = family.make_block(**{**_SIZES, "top_k": activated or 2})
    router = block.get_submodule(family.router)
    config = family.configured(d=24, f=16, experts=16, activated=activated or 2)
    plain = type(router) is nn.Linear
    routing, mixing = ("", _code(block)) if plain else (_code(router), _code(block))
    routing = routing or mixing
    names = tensors_of(block)
    bias = next((n for n in names if "correction_bias" in n or n.endswith("expert_bias")), None)
    nulls = getattr(config, "zero_expert_num", 0) or 0
    groups = (getattr(config, "n_group", 1) or 1) if "group" in routing else 1
    order, gate = _order(routing), _gate(config, routing)
    normalized = _normalizes(config, routing) or (gate == "softmax" and order == "select_first")
    learned = any(n.endswith("scale") and p.shape == (_SIZES["n_experts"],) for n, p in router.named_parameters())
    inner, outer = _scale(router, routing), 1.0 if plain else _scale(block, mixing)
    return RoutingSpec(
        kind="variable" if nulls else "token_choice",
        gate="any" if learned else gate,
        order=order,
        weight_sum=inner if normalized and not learned else "free",
        top_k=activated,
        groups=groups,
        group_limit=getattr(config, "topk_group", None) if groups > 1 else None,
        group_rank=_rank(routing) if groups > 1 else None,
        null_experts="identity" if nulls and "dentity" in _code(block.get_submodule("experts")) else None,
        selection_bias=bias and bias.rpartition(".")[2],
        apply_on="input" if re.search(r"\*\s*\w*scores\b.*self\.experts\(", mixing, re.DOTALL) else "output",
        shared=any("shared" in n for n in names),
        route_scale=outer,
        router=None if plain else family.router,
    )


def _activated(family: Family) -> int | None:
    """The one number of activated experts that the design allows, or None: with 3 asked for, what does it take?"""
    known = family.config.__dataclass_fields__
    if family.activated == 1 or not any(name in known for name in ACTIVATED):
        return 1
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
    try:
        returned = family.make_router(24, 16, 3).eval()(x)
    except Exception:  # it takes no tokens [T, d], so nothing is known
        return None
    parts = [p for p in (returned if isinstance(returned, tuple) else (returned,)) if isinstance(p, Tensor)]
    counts = {p.shape[1] for p in parts if not p.is_floating_point() and p.dim() == 2 and p.shape[1] < 16}
    return counts.pop() if len(counts) == 1 and counts != {3} else None


def _code(module: nn.Module) -> str:
    """The code of a module's class from its forward on, without comments and docstrings."""
    code = inspect.getsource(type(module))
    code = re.sub(r'"""(.*?)"""|#[^\n]*', "", code, flags=re.DOTALL)
    return code[max(code.find("def forward"), 0) :]


def _gate(config: Any, code: str) -> Gate:
    """The gate function that the configuration names, or the only one in the code."""
    named = next((v for n in ("scoring_func", "expert_selection_fn") if (v := getattr(config, n, None))), None)
    found = {named} if named else set(re.findall(r"softmax|sigmoid", code))
    return next((gate for gate in ("softmax", "sigmoid") if found == {gate}), "any")  # type: ignore[return-value]


def _order(code: str) -> Literal["score_first", "select_first", "any"]:
    """Whether the code calls the gate function before the choice or after it."""
    gate, choice = re.search(r"(softmax|sigmoid)\w*\(", code), re.search(r"topk\(", code)
    if gate is None or choice is None:
        return "any"
    return "score_first" if gate.start() < choice.start() else "select_first"


def _normalizes(config: Any, code: str) -> bool:
    """Whether the weights are divided by their sum: norm_topk_prob where the code reads it, else the code."""
    divides = re.search(r"sum\([^)]*keepdims?=True", code) is not None
    return divides and (getattr(config, "norm_topk_prob", True) is not False or "norm_topk_prob" not in code)


def _scale(module: nn.Module, code: str) -> float:
    """The routed scale that the module's code applies."""
    values = [getattr(module, name, None) for name in _SCALE.findall(code)]
    return next((float(value) for value in values if isinstance(value, int | float)), 1.0)


def _rank(code: str) -> Literal["max", "top2_sum"] | None:
    """How groups are ranked."""
    return "top2_sum" if re.search(r"topk\(\s*2\b", code) else "max" if ".max(" in code else None
