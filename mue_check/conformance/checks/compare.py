"""Compare two results token by token, for checks of routers and blocks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import CheckOutcome, failed, passed

NO_LOGITS = "the router's logits are not visible: return them, and claim returns = {logits = ...}"
TOLERANCE = 1e-4
"""Relative to the largest entry; float32 sums in another order differ by far less."""
ATOMIC_ROUNDING = 8
"""How many units of rounding, relative to the largest entry, a sum of a few experts may change with its order."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference of two [T, ...] tensors: how many tokens differ, the largest difference and its token."""

    tokens: int
    differing: int
    largest: float
    worst: int

    @property
    def significant(self) -> bool:
        """More than one tie among many tokens that rounding broke the other way."""
        return self.differing > (1 if self.tokens >= 16 else 0)

    def __str__(self) -> str:
        return f"{self.differing} of {self.tokens} tokens differ, by up to {self.largest:.3g}"


def difference(first: Tensor, second: Tensor, *, tolerance: float = TOLERANCE) -> Difference:
    """Compare token by token; NaN differs from everything."""
    if first.shape != second.shape:
        return Difference(tokens=len(first), differing=len(first), largest=float("inf"), worst=0)
    if not len(first):
        return Difference(tokens=0, differing=0, largest=0.0, worst=0)
    error = (first - second).detach().double().flatten(1).abs().amax(1)
    scale = max(float(first.detach().abs().max()), float(second.detach().abs().max()), 1e-12)
    wrong = ~(error <= tolerance * scale)
    return Difference(
        tokens=len(first), differing=int(wrong.sum()), largest=float(error.max()), worst=int(error.argmax())
    )


def compare(
    first: Tensor, second: Tensor, when: str, *, causes: tuple[int, ...] = (), exact: bool = False
) -> CheckOutcome:
    """Passed if two results agree up to one tie, or with ``exact`` in every bit.

    On a GPU, ``exact`` allows for rounding: atomic additions have no fixed order there.
    """
    rounding = ATOMIC_ROUNDING * torch.finfo(first.dtype).eps if first.is_cuda else 0.0
    found = difference(first, second, tolerance=rounding if exact else TOLERANCE)
    if found.differing if exact else found.significant:
        return failed(f"{when}: {found}", worst=f"token {found.worst}", causes=causes)
    return passed(f"{when}: {found}")


def is_activated(factor: float, case: ConformanceCase) -> bool:
    """Whether a factor is the number a of activated experts, where that is not 1."""
    a = case.shape.activated
    return a > 1 and abs(factor / a - 1) <= 1e-3


def first_token(mask: Tensor) -> str:
    """The first token in a mask [T, ...], in words."""
    return f"token {int(mask.nonzero()[0, 0])}"


def first_pair(mask: Tensor) -> str:
    """The first token and expert in a mask [T, E], in words."""
    token, expert = mask.nonzero()[0].tolist()
    return f"token {token}, expert {expert}"


def similar_tokens(case: ConformanceCase) -> Tensor:
    """[T, D] tokens that are nearly equal, so they want the same experts."""
    x = case.tokens(11)
    return x[:1] + 1e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(5)).to(x.device)
