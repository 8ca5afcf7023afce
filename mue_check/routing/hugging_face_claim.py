"""What a mixture of transformers claims: its configuration, and where that says nothing, the code of its classes.

The code is only read for what it says it does, such as the name of its gate function. Whether it does that is what the
checks measure.
"""

import inspect
import re
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from mue_check.errors import ClaimError, UnreadableError
from mue_check.routing.adapter import Layout, Size, learn_layout, leaves_of
from mue_check.routing.claim import Field, Gate, RoutingSpec
from mue_check.routing.hugging_face import ACTIVATED, Family, tensors_of

_EXPERTS, _TOKENS = 16, 7
_SCALE = re.compile(r"self\.(\w*rout\w*_scal\w*)")
"""The routed scale, by the names that models give it (routed_scaling_factor, route_scale)."""


def block_claim(family: Family) -> RoutingSpec:
    """The claim of the family's block; ClaimError where the block cannot be called with tokens alone."""
    if family.trouble:
        raise ClaimError(f"{family.trouble}; try mue_check router")
    return _claim(family)


def router_claim(family: Family) -> RoutingSpec:
    """The claim of the family's router alone; ClaimError where that does not return a routing."""
    claim = _claim(family)
    if claim.router is None:
        raise ClaimError(f"{family.block.__name__}.{family.router} returns no weights and indices: check the block")
    divided = re.search(r"/ self\.top_k", _code(family.make_router(24, 16, family.activated)))
    free = {"weight_sum": "free"} if divided else {}
    return replace(claim, router=None, shared=False, route_scale=1.0, apply_on="output", **free)  # type: ignore[arg-type]


def _claim(family: Family) -> RoutingSpec:
    activated = _activated(family)
    block = family.make_block(24, 16, _EXPERTS, activated or 2)
    router = block.get_submodule(family.router)
    config = family.configured(d=24, f=16, experts=_EXPERTS, activated=activated or 2)
    layout, returns = _returns(family, activated)
    mixing = _code(block)
    routing = mixing if type(router) is nn.Linear else _code(router)
    everything = routing + mixing + "".join(_code(m) for n, m in block.named_children() if n == "experts")
    names = tensors_of(block)
    bias = next((n for n in names if "correction_bias" in n or re.search(r"expert_bias|balancing_bias", n)), None)
    more = any(p.dim() == 2 and _EXPERTS < p.shape[0] <= 2 * _EXPERTS for p in router.parameters())
    nulls = more and re.search(r"zero_expert|skip_expert|null_expert|identity_expert", everything)
    groups = (getattr(config, "n_group", 1) or 1) if "group" in routing else 1
    order, gate = _order(routing), _gate(config, routing)
    normalized = _normalizes(config, routing) or (gate == "softmax" and order == "select_first")
    learned = any(n.endswith("scale") and p.shape == (_EXPERTS,) for n, p in router.named_parameters())
    return RoutingSpec(
        kind="variable" if nulls else "token_choice",
        gate="any" if learned or (more and not nulls) else gate,  # the other rows are of shared experts
        order=order,
        weight_sum=_scale(router, routing) if normalized and not learned else "free",
        top_k=activated,
        groups=groups,
        group_limit=getattr(config, "topk_group", None) if groups > 1 else None,
        group_rank=_rank(routing) if groups > 1 else None,
        null_experts=("identity" if "identity" in everything else "zero") if nulls else None,
        selection_bias=bias and bias.rpartition(".")[2],
        apply_on="input" if re.search(r"\*\s*\w*scores\b.*self\.experts\(", mixing, re.DOTALL) else "output",
        shared=any("shared" in n for n in names),
        route_scale=1.0 if layout is None else _scale(block, mixing),
        router=None if layout is None else family.router,
        returns=returns,
    )


def _activated(family: Family) -> int | None:
    """The one number of activated experts that the design allows, or None: with 3 asked for, what does it take?"""
    if family.activated == 1 or not any(name in family.fields for name in ACTIVATED):
        return 1
    try:
        returned = _returned(family, 3)
    except Exception:  # it takes no tokens [T, d], so nothing is known
        return None
    leaves = [leaf for _, leaf in leaves_of(returned, _size(3)) if not leaf.is_floating_point() and leaf.dim() == 2]
    counts = {leaf.shape[1] for leaf in leaves if leaf.shape[1] < _EXPERTS}
    return counts.pop() if len(counts) == 1 and counts != {3} else None


def _returns(family: Family, activated: int | None) -> tuple[Layout | None, dict[Field, int | str]]:
    """(the layout of the router's return, None where there is none; the places to claim where it is ambiguous)."""
    unclear = False
    for a in (activated or 2, activated or 3):
        try:
            layout = learn_layout(_returned(family, a), _size(a), RoutingSpec(kind="variable"))
        except UnreadableError:
            unclear = True  # with another a the shapes may differ
            continue
        except Exception:
            return None, {}
        return layout, {name: path[0] for name, path in layout.parts.items()} if unclear else {}
    return None, {}


def _returned(family: Family, activated: int) -> Any:
    """What the router returns for a few tokens."""
    x = torch.randn(_TOKENS, 24, generator=torch.Generator().manual_seed(0))
    router = family.make_router(24, _EXPERTS, activated).eval()
    with torch.no_grad():
        try:
            return router(x)
        except Exception:  # it may take sequences alone
            return router(x.unsqueeze(0))


def _size(activated: int) -> Size:
    return Size(tokens=_TOKENS, experts=_EXPERTS, activated=activated, lead=(1, _TOKENS))


def _code(module: nn.Module) -> str:
    """The code of a module's class from its forward on, without comments and docstrings."""
    code = inspect.getsource(type(module))
    code = re.sub(r'"""(.*?)"""|#[^\n]*', "", code, flags=re.DOTALL)
    return code[max(code.find("def forward"), 0) :]


def _gate(config: Any, code: str) -> Gate:
    """The gate function that the configuration names, or the only one in the code."""
    named = next((v for n in ("scoring_func", "expert_selection_fn") if (v := getattr(config, n, None))), None)
    found = {named} if named else set(re.findall(r"softmax|sigmoid", code))
    return next((gate for gate in ("softmax", "sigmoid") if found == {gate}), "any")


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
