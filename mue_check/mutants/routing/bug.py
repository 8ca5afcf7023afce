"""Right and Bug: somebody's router, block or loss in small, and the same with one mistake in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from mue_check.routing.claim import RoutingSpec

What = Literal["router", "block", "auxiliary_loss", "optimizer"]
"""What a factory makes, and how that is called.

router: factory(d_model, n_experts, top_k), called with x [tokens, d_model]. block: factory(d_model, d_expert,
n_experts, top_k), y = block(x) with x [batch, time, d_model]. auxiliary_loss: the factory is the loss itself,
f(logits of each layer, a tuple of [T, E]; n_experts; top_k) -> scalar. optimizer: factory() -> (model, optimizer).
"""
Factory = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Right:
    """A right implementation, which every check must let pass; ValueError for sizes that its design cannot take."""

    name: str
    candidate: What
    factory: Factory
    claim: RoutingSpec
    source: str


@dataclass(frozen=True, kw_only=True)
class Bug:
    """A mistake that really happened, silent there and here: finite, plausible numbers.

    ``row`` is the mistake's number in the table of bugs, ``seen`` where it was met, ``caught_by`` the id of the check
    that must see it, ``claim`` what its author believed, ``twin`` the right implementation that it was made from.
    """

    row: int
    name: str
    summary: str
    seen: str
    candidate: What
    caught_by: str
    factory: Factory
    claim: RoutingSpec
    twin: Factory
