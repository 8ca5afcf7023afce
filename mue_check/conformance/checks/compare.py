"""What checks share: what a candidate does with tokens, and how two doings differ."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mue_check.conformance.case import Built

NO_LOGITS = "what the router computes logits from is not to be seen: claim returns = {logits = ...}, and return them"
TOLERANCE = 1e-4
"""Of the largest entry: float32 with another order of sums stays far below."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far two [T, ...] tensors lie apart: tokens that differ, the largest difference and where."""

    tokens: int
    differing: int
    largest: float
    worst: int

    @property
    def real(self) -> bool:
        """More than a tie that rounding broke the other way: that is one token among many."""
        return self.differing > (1 if self.tokens >= 16 else 0)

    def __str__(self) -> str:
        return f"{self.differing} of {self.tokens} tokens differ, by up to {self.largest:.3g}"


def difference(first: Tensor, second: Tensor, *, tolerance: float = TOLERANCE) -> Difference:
    """Token by token; NaN differs from everything."""
    if first.shape != second.shape:
        return Difference(tokens=len(first), differing=len(first), largest=float("inf"), worst=0)
    if not len(first):
        return Difference(tokens=0, differing=0, largest=0.0, worst=0)
    apart = (first - second).detach().double().flatten(1).abs().amax(1)
    scale = max(float(first.detach().abs().max()), float(second.detach().abs().max()), 1e-12)
    wrong = ~(apart <= tolerance * scale)
    return Difference(
        tokens=len(first), differing=int(wrong.sum()), largest=float(apart.max()), worst=int(apart.argmax())
    )


def observed(built: Built, x: Tensor) -> Tensor:
    """[T, ...]: a router's weights of each token at each expert, a block's output."""
    return built.route(x).combine if built.case.candidate.kind == "router" else built.output(x)


def fresh(count: int, built: Built, draw: int) -> Tensor:
    """[count, D] other tokens."""
    return built.case.tokens(draw, count=count)


def alike_tokens(built: Built) -> Tensor:
    """[T, D] tokens that nearly agree, so that they want the same experts."""
    x = built.case.tokens(11)
    return x[:1] + 1e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(5)).to(x.device)
