"""MISBEHAVING: routers that break the caller instead of the claim. A check must survive each, and say what happened.

Those in FATAL do not return to their caller, or raise no Exception: call them in another process, with a limit on time.
"""

import os
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

from mue_check.mutants.routing.gates import CompleteMueRouter, Weighted


class GivesUp(BaseException):
    """An exception that ``except Exception`` lets through."""


class Raises(CompleteMueRouter):
    """Raises RuntimeError, with a message of several lines."""

    def forward(self, x: Tensor) -> Weighted:
        raise RuntimeError(f"router was not initialised\n  for input of shape {tuple(x.shape)}")


class RaisesAtOddSizes(CompleteMueRouter):
    """Raises unless E is a power of two."""

    def forward(self, x: Tensor) -> Weighted:
        if self.n_experts & (self.n_experts - 1):
            raise RuntimeError(f"n_experts={self.n_experts} must be a power of 2")
        return super().forward(x)


class RaisesBaseException(CompleteMueRouter):
    """Raises past every ``except Exception``."""

    def forward(self, x: Tensor) -> Weighted:
        raise GivesUp("no")


class Sleeps(CompleteMueRouter):
    """Waits for ranks that do not exist, and lets other threads run."""

    def forward(self, x: Tensor) -> Weighted:
        while True:
            time.sleep(3600)


class Spins(CompleteMueRouter):
    """Waits in a busy loop."""

    def forward(self, x: Tensor) -> Weighted:
        while True:
            pass


class Exits(CompleteMueRouter):
    """Exits as a script would, with 0, which looks like success."""

    def forward(self, x: Tensor) -> Weighted:
        sys.exit(0)


class ExitsAtOnce(CompleteMueRouter):
    """Ends the process: nothing runs after this, no finally and no atexit."""

    def forward(self, x: Tensor) -> Weighted:
        os._exit(0)


class NotANumber(CompleteMueRouter):
    """Weights of NaN, and right indices."""

    def forward(self, x: Tensor) -> Weighted:
        weights, indices = super().forward(x)
        return weights * torch.nan, indices


class WrongShape(CompleteMueRouter):
    """One weight too many: weights [T, a + 1], indices [T, a]."""

    def forward(self, x: Tensor) -> Weighted:
        weights, indices = super().forward(x)
        return torch.cat([weights, weights[:, :1]], dim=-1), indices


class ReturnsNone(CompleteMueRouter):
    """A forward pass without a return."""

    def forward(self, x: Tensor) -> None:  # type: ignore[override]
        super().forward(x)


class WrongType(CompleteMueRouter):
    """Indices that are floats."""

    def forward(self, x: Tensor) -> Weighted:
        weights, indices = super().forward(x)
        return weights, indices.to(weights.dtype)


class Doubles(CompleteMueRouter):
    """Weights of float64 for any x."""

    def forward(self, x: Tensor) -> Weighted:
        weights, indices = super().forward(x)
        return weights.double(), indices


class WrongDevice(CompleteMueRouter):
    """Tensors on the device "meta": they have a shape and no numbers."""

    def forward(self, x: Tensor) -> Weighted:
        weights, indices = super().forward(x)
        return weights.to("meta"), indices.to("meta")


class MutatesInput(CompleteMueRouter):
    """Normalizes its input in place, in training and in evaluation."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Weighted:
        x.div_(x.norm(dim=-1, keepdim=True) + 1e-6)
        return super().forward(x)


class WantsMoreInForward(CompleteMueRouter):
    """Needs the tokens' ids too: TypeError for a caller with x alone."""

    def forward(self, x: Tensor, ids: Tensor) -> Weighted:  # type: ignore[override]
        return super().forward(x + ids)


class WantsMoreInFactory(CompleteMueRouter):
    """Needs a dropout rate to be made."""

    def __init__(self, d_model: int, n_experts: int, top_k: int, dropout: float) -> None:
        super().__init__(d_model, n_experts, top_k)
        self.dropout = nn.Dropout(dropout)


class Prints(CompleteMueRouter):
    """Prints to the standard output, which may be somebody's JSON."""

    def forward(self, x: Tensor) -> Weighted:
        print(f"routing {len(x)} tokens")
        return super().forward(x)


class Reseeds(CompleteMueRouter):
    """Sets the global seed for its own noise: the next draw repeats an earlier one."""

    def forward(self, x: Tensor) -> Weighted:
        torch.manual_seed(0)
        return super().forward(x)


def not_a_module(d_model: int, n_experts: int, top_k: int) -> Any:
    """A factory that makes a class instead of a module."""
    return CompleteMueRouter


FATAL = (RaisesBaseException, Sleeps, Spins, Exits, ExitsAtOnce)
MISBEHAVING = (
    Raises,
    RaisesAtOddSizes,
    *FATAL,
    NotANumber,
    WrongShape,
    ReturnsNone,
    WrongType,
    Doubles,
    WrongDevice,
    MutatesInput,
    WantsMoreInForward,
    WantsMoreInFactory,
    not_a_module,
    Prints,
    Reseeds,
)
