"""MISBEHAVING: routers that break the caller instead of the claim. A check must survive each, and say what happened.

Some never return and one ends the process: call their forward in a process of its own, with a limit on time.
"""

import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mue_check.mutants.routing.bug import Factory
from mue_check.mutants.routing.gates import CompleteMueRouter, Weighted
from mue_check.routing.claim import RoutingSpec


@dataclass(frozen=True, kw_only=True)
class Misbehaving:
    """``survives``: forward comes back to its caller, with a value or an exception that is an Exception."""

    name: str
    summary: str
    factory: Factory
    claim: RoutingSpec = CompleteMueRouter.routing_spec
    survives: bool = True


class GivesUp(BaseException):
    """An exception that ``except Exception`` lets through."""


class Raises(CompleteMueRouter):
    """An error of several lines."""

    def forward(self, x: Tensor) -> Weighted:
        """RuntimeError."""
        raise RuntimeError(f"router was not initialised\n  for input of shape {tuple(x.shape)}")


class RaisesAtOddSizes(CompleteMueRouter):
    """Works at the sizes that its author tried."""

    def forward(self, x: Tensor) -> Weighted:
        """RuntimeError where E is no power of two."""
        if self.n_experts & (self.n_experts - 1):
            raise RuntimeError(f"n_experts={self.n_experts} must be a power of 2")
        return super().forward(x)


class RaisesBaseException(CompleteMueRouter):
    """Past every ``except Exception``."""

    def forward(self, x: Tensor) -> Weighted:
        """GivesUp."""
        raise GivesUp("no")


class Sleeps(CompleteMueRouter):
    """Waits for ranks that do not exist."""

    def forward(self, x: Tensor) -> Weighted:
        """Does not return, and lets other threads run."""
        while True:
            time.sleep(3600)


class Spins(CompleteMueRouter):
    """Waits busily."""

    def forward(self, x: Tensor) -> Weighted:
        """Does not return, and uses a whole core."""
        while True:
            pass


class Exits(CompleteMueRouter):
    """Leaves as a script would."""

    def forward(self, x: Tensor) -> Weighted:
        """SystemExit with 0, which looks like success."""
        sys.exit(0)


class ExitsAtOnce(CompleteMueRouter):
    """Ends the process without a word."""

    def forward(self, x: Tensor) -> Weighted:
        """Nothing runs after this, no finally and no atexit."""
        os._exit(0)


class NotANumber(CompleteMueRouter):
    """Weights of NaN."""

    def forward(self, x: Tensor) -> Weighted:
        """NaN and right indices."""
        weights, indices = super().forward(x)
        return weights * torch.nan, indices


class WrongShape(CompleteMueRouter):
    """One weight too many for the indices."""

    def forward(self, x: Tensor) -> Weighted:
        """Weights [T, a + 1], indices [T, a]."""
        weights, indices = super().forward(x)
        return torch.cat([weights, weights[:, :1]], dim=-1), indices


class ReturnsNone(CompleteMueRouter):
    """Forgot to return."""

    def forward(self, x: Tensor) -> None:  # type: ignore[override]
        """None."""
        super().forward(x)


class WrongType(CompleteMueRouter):
    """Indices that are floats."""

    def forward(self, x: Tensor) -> Weighted:
        """Two float tensors [T, a]."""
        weights, indices = super().forward(x)
        return weights, indices.to(weights.dtype)


class Doubles(CompleteMueRouter):
    """Weights in float64 whatever the input is."""

    def forward(self, x: Tensor) -> Weighted:
        """Right otherwise."""
        weights, indices = super().forward(x)
        return weights.double(), indices


class WrongDevice(CompleteMueRouter):
    """Weights that have a shape and no numbers."""

    def forward(self, x: Tensor) -> Weighted:
        """Tensors on the device "meta"."""
        weights, indices = super().forward(x)
        return weights.to("meta"), indices.to("meta")


class MutatesInput(CompleteMueRouter):
    """Normalizes its input in place, in training and outside."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Weighted:
        """The caller's x has changed."""
        x.div_(x.norm(dim=-1, keepdim=True) + 1e-6)
        return super().forward(x)


class WantsMoreInForward(CompleteMueRouter):
    """Wants the tokens' ids too."""

    def forward(self, x: Tensor, ids: Tensor) -> Weighted:  # type: ignore[override]
        """TypeError for a caller with x alone."""
        return super().forward(x + ids)


class WantsMoreInFactory(CompleteMueRouter):
    """Wants a dropout rate to be made."""

    def __init__(self, d_model: int, n_experts: int, top_k: int, dropout: float) -> None:
        super().__init__(d_model, n_experts, top_k)
        self.dropout = nn.Dropout(dropout)


class Prints(CompleteMueRouter):
    """Logs to the standard output, which may be somebody's JSON."""

    def forward(self, x: Tensor) -> Weighted:
        """Right otherwise."""
        print(f"routing {len(x)} tokens")
        return super().forward(x)


class Reseeds(CompleteMueRouter):
    """Sets the global seed for its own noise."""

    def forward(self, x: Tensor) -> Weighted:
        """Right otherwise; whoever draws next draws what was drawn before."""
        torch.manual_seed(0)
        return super().forward(x)


def not_a_module(d_model: int, n_experts: int, top_k: int) -> Any:
    """A factory that makes a class instead of a module."""
    return CompleteMueRouter


MISBEHAVING = (
    Misbehaving(name="raises", summary="raises RuntimeError", factory=Raises),
    Misbehaving(name="raises_at_odd_sizes", summary="raises unless N is a power of two", factory=RaisesAtOddSizes),
    Misbehaving(
        name="raises_base_exception", summary="raises a BaseException", factory=RaisesBaseException, survives=False
    ),
    Misbehaving(name="sleeps", summary="sleeps for ever", factory=Sleeps, survives=False),
    Misbehaving(name="spins", summary="loops for ever", factory=Spins, survives=False),
    Misbehaving(name="exits", summary="calls sys.exit(0)", factory=Exits, survives=False),
    Misbehaving(name="exits_at_once", summary="calls os._exit(0)", factory=ExitsAtOnce, survives=False),
    Misbehaving(name="not_a_number", summary="returns NaN", factory=NotANumber),
    Misbehaving(name="wrong_shape", summary="returns a weight too many", factory=WrongShape),
    Misbehaving(name="returns_none", summary="returns None", factory=ReturnsNone),
    Misbehaving(name="wrong_type", summary="returns indices as floats", factory=WrongType),
    Misbehaving(name="doubles", summary="returns float64 for float32", factory=Doubles),
    Misbehaving(name="wrong_device", summary="returns tensors on the device meta", factory=WrongDevice),
    Misbehaving(name="mutates_input", summary="changes its input in place", factory=MutatesInput),
    Misbehaving(name="wants_more_in_forward", summary="forward needs two arguments", factory=WantsMoreInForward),
    Misbehaving(name="wants_more_in_factory", summary="the factory needs four arguments", factory=WantsMoreInFactory),
    Misbehaving(name="not_a_module", summary="the factory returns a class", factory=not_a_module),
    Misbehaving(name="prints", summary="prints to stdout", factory=Prints),
    Misbehaving(name="reseeds", summary="sets the global seed", factory=Reseeds),
)
