"""Candidates: a router or block to check, made by a factory at any shape; the built-in routers among them."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mue_check.errors import ClaimError, with_article
from mue_check.global_state import guarded_import
from mue_check.plain import require_plain
from mue_check.routing import hugging_face
from mue_check.routing.choice import DenseChoice, Mixture
from mue_check.routing.claim import ATTRIBUTE, RoutingSpec, claim_of
from mue_check.routing.frameworks import ADAPTERS
from mue_check.routing.hugging_face_claim import block_claim, router_claim
from mue_check.routing.variants import Variant, get_variant, route
from mue_check.user_code import describe_error, import_user_module, no_exit

CandidateKind = Literal["router", "block"]
Factory = Callable[..., nn.Module]
"""A router's: (d_model, n_experts, top_k). A block's: (d_model, d_expert, n_experts, top_k)."""


@dataclass(frozen=True)
class Shape:
    """Sizes of one check: width d, expert width f, E experts, a activated, T tokens."""

    d: int
    f: int
    experts: int
    activated: int
    tokens: int

    def __str__(self) -> str:
        return f"d={self.d} f={self.f} E={self.experts} a={self.activated} T={self.tokens}"


SHAPES = (
    Shape(d=24, f=16, experts=8, activated=2, tokens=50),
    Shape(d=32, f=16, experts=12, activated=3, tokens=42),  # 2f = d, E no power of two
    Shape(d=40, f=24, experts=8, activated=1, tokens=34),
    Shape(d=24, f=32, experts=6, activated=6, tokens=6),  # all experts activated, and T = E
    Shape(d=48, f=8, experts=16, activated=4, tokens=2),
    Shape(d=56, f=16, experts=64, activated=8, tokens=72),
)
"""All sizes of the first shape differ, so a layout can be learned there. Widths are multiples of 8, since grouped
matrix products need rows of 16 bytes, in bfloat16 too."""
ONE_TOKEN = Shape(d=24, f=16, experts=8, activated=2, tokens=1)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A router or block to check. ``name`` is its command line argument; ``claimed``: the origin of its claim."""

    kind: CandidateKind
    name: str
    factory: Factory
    claim: RoutingSpec
    claimed: str
    claims: bool = True
    """Whether its author claims anything, or the default claim stands in."""

    def build(self, shape: Shape) -> nn.Module:
        """The factory's module at a shape; TypeError when it makes none."""
        sizes = {"d_model": shape.d, "d_expert": shape.f, "n_experts": shape.experts, "top_k": shape.activated}
        if self.kind == "router":
            del sizes["d_expert"]
        module = _call(self.factory, sizes)
        if not isinstance(module, nn.Module):
            raise TypeError(f"the factory gives {type(module).__name__}, not a torch.nn.Module")
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_meta:
                raise TypeError(f"{name} is on the meta device and has no values: to_empty, then its init, are missing")
        require_plain(module)
        return module

    def shapes(self, shapes: Sequence[Shape] = SHAPES) -> tuple[Shape, ...]:
        """These shapes, changed as the claim requires: groups divide E, and the design allows a."""
        return tuple(dict.fromkeys(fitted(shape, self.claim) for shape in shapes))


def fitted(shape: Shape, claim: RoutingSpec) -> Shape:
    """The nearest shape that the claim allows."""
    groups, a = claim.groups, shape.activated
    if claim.top_k is not None:
        a = claim.top_k
    elif claim.per_group_k is not None:
        a = groups * claim.per_group_k
    # keep a choice where the shape had one
    size = -(-max(shape.experts, a if shape.activated == shape.experts else 2 * a) // groups)
    if claim.per_group_k is not None:
        size = max(size, claim.per_group_k)
    if claim.group_limit is not None:
        size = max(size, -(-a // claim.group_limit), 4)  # groups rank by their two best: 4 make a choice
    experts = groups * size
    # with d = E the axes of a router would be ambiguous; kernels need multiples of 8
    return replace(shape, d=shape.d + 8 * (shape.d == experts), experts=experts, activated=a)


def load_candidate(kind: CandidateKind, name: str, claim: RoutingSpec | None = None) -> Candidate:
    """The candidate at module:factory, file.py:factory, builtin:NAME or hf:CONFIG; ClaimError if there is none."""
    if name.startswith("builtin:"):
        if kind != "router":
            raise ClaimError(f"{name}: there are built-in routers, no blocks")
        return candidate_of(kind, builtin_router(name.removeprefix("builtin:")), name=name, claim=claim)
    if name.startswith(hugging_face.PREFIX):
        mixture = hugging_face.family(name.removeprefix(hugging_face.PREFIX))
        own = router_claim(mixture) if kind == "router" else block_claim(mixture)
        made = candidate_of(kind, mixture.make_router if kind == "router" else mixture.make_block, name=name, claim=own)
        read = f"read from {mixture.config.__name__} and the code of transformers"
        return replace(made, claim=claim or own, claimed="given" if claim else read)
    library, _, rest = name.partition(":")
    if (library, kind) in ADAPTERS:
        inner = load_candidate("block", rest)
        return candidate_of(kind, ADAPTERS[library, kind](inner.factory), name=name, claim=claim)
    where, colon, attribute = name.rpartition(":")
    if not colon or not where or not attribute:
        raise ClaimError(f"{name!r}: write MODULE:FACTORY or FILE.py:FACTORY")
    found: object = _module(where)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ClaimError(f"{name}: {where} has no {attribute!r}") from None
    if not callable(found):
        raise ClaimError(f"{name}: {attribute} is {with_article(type(found))}, nothing to call")
    return candidate_of(kind, found, name=name, claim=claim)


def candidate_of(
    kind: CandidateKind, factory: Factory, *, name: str = "", claim: RoutingSpec | None = None
) -> Candidate:
    """A candidate with the given claim, or else the one that its factory carries, or else the default."""
    label = name or getattr(factory, "__qualname__", None) or type(factory).__name__
    carried = getattr(factory, ATTRIBUTE, None)
    origin = "given"
    if claim is None and carried is not None:
        claim, origin = claim_of(carried, f"{label}.{ATTRIBUTE}"), f"its {ATTRIBUTE}"
    claims = claim is not None
    if claim is None:
        claim, origin = RoutingSpec(), "the default, which Complete-muE assumes: it declares no claim"
    if ":" in (claim.auxiliary_loss or ""):
        auxiliary_function(claim)
    return Candidate(kind=kind, name=label, factory=factory, claim=claim, claimed=origin, claims=claims)


def auxiliary_function(claim: RoutingSpec) -> Callable[..., Any]:
    """The function that the claim names as its auxiliary loss; ClaimError if there is none."""
    module, _, name = (claim.auxiliary_loss or "").partition(":")
    found: object = getattr(_module(module), name, None)
    if not callable(found):
        raise ClaimError(f"the claim's auxiliary_loss: {module!r} has no function {name!r}")
    return found


def _module(where: str) -> object:
    if where.endswith(".py") and not Path(where).is_file():
        raise ClaimError(f"{where}: no such file")
    try:
        with no_exit(), guarded_import():
            return import_user_module(where)
    except Exception as error:  # an import may raise anything
        raise ClaimError(f"cannot import {where!r}: {describe_error(error)}") from None


def _call(factory: Callable[..., Any], sizes: dict[str, int]) -> Any:
    """Call by keyword if the factory has our names, else by position."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return factory(*sizes.values())
    if set(sizes) <= set(signature.parameters):
        return factory(**sizes)
    try:
        signature.bind(*sizes.values())
    except TypeError:
        raise TypeError(f"the factory takes {signature}; it is called with ({', '.join(sizes)})") from None
    return factory(*sizes.values())


class BuiltinRouter(nn.Module):
    """One variant for one run: x [tokens, d_model] -> (weights, indices), both [T, a]; for expert_choice [E, C]."""

    def __init__(self, variant: Variant, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        if not variant.claim.takes(n_experts, top_k):
            raise ValueError(
                f"{variant.name} cannot choose {top_k} of {n_experts} experts: its claim is {variant.claim}"
            )
        groups = variant.claim.groups if variant.grouped else 1
        self.experts = Mixture(router=variant.name, total=n_experts, activated=top_k, groups=groups)
        self.weight = nn.Parameter(torch.randn(n_experts, d_model) / d_model**0.5)
        if variant.claim.selection_bias:
            self.register_buffer(variant.claim.selection_bias, torch.zeros(n_experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and indices of the tokens."""
        logits = nn.functional.linear(x.float(), self.weight.float())
        biases = [bias.float().unsqueeze(0) for bias in self.buffers()]
        choice = route(logits.unsqueeze(0), self.experts, bias_RE=biases[0] if biases else None)
        assert not isinstance(choice, DenseChoice)
        return choice.weights.squeeze(0), choice.indices.squeeze(0)


def builtin_router(name: str) -> Callable[[int, int, int], nn.Module]:
    """A factory (d_model, n_experts, top_k) with its claim; ClaimError where it cannot stand alone."""
    variant = get_variant(name)
    if variant.by_place:
        raise ClaimError(f"builtin:{name} routes by the tokens themselves, and is no module of activations")

    def factory(d_model: int, n_experts: int, top_k: int) -> nn.Module:
        return BuiltinRouter(variant, d_model, n_experts, top_k)

    factory.routing_spec = variant.claim  # type: ignore[attr-defined]
    return factory
