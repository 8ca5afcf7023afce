"""Routers that break their caller instead of their claim: a check must survive each, and say what happened."""

import os
import sys
import time
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from mue_check.mutants.routing.gates import CompleteMueRouter as Right
from tests.specimens import variant


class GivesUp(BaseException):
    """An exception that ``except Exception`` lets through."""


def throw(error: BaseException) -> NoReturn:
    raise error


def changed(name: str, change: Any) -> type[nn.Module]:
    """A router whose weights and indices are changed."""
    return variant(Right, name, forward=lambda m, x: change(*Right.forward(m, x)))


def does(name: str, act: Any) -> type[nn.Module]:
    """A router that acts on itself and its tokens before it routes them."""
    return variant(Right, name, forward=lambda m, x: (act(m, x), Right.forward(m, x))[1])


Raises = does(
    "Raises", lambda m, x: throw(RuntimeError(f"router was not initialised\n  for input of shape {tuple(x.shape)}"))
)
RaisesBaseException = does("RaisesBaseException", lambda m, x: throw(GivesUp("no")))
Sleeps = does("Sleeps", lambda m, x: time.sleep(3600))
Exits = does("Exits", lambda m, x: sys.exit(0))
ExitsAtOnce = does("ExitsAtOnce", lambda m, x: os._exit(0))
Prints = does("Prints", lambda m, x: print(f"routing {len(x)} tokens"))
NotANumber = changed("NotANumber", lambda weights, indices: (weights * torch.nan, indices))
WrongShape = changed("WrongShape", lambda weights, indices: (torch.cat([weights, weights[:, :1]], dim=-1), indices))
WrongType = changed("WrongType", lambda weights, indices: (weights, indices.to(weights.dtype)))
Doubles = changed("Doubles", lambda weights, indices: (weights.double(), indices))
WrongDevice = changed("WrongDevice", lambda weights, indices: (weights.to("meta"), indices.to("meta")))
WantsMoreInForward = variant(Right, "WantsMoreInForward", forward=lambda m, x, ids: Right.forward(m, x + ids))


class MutatesInput(Right):
    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x.div_(x.norm(dim=-1, keepdim=True) + 1e-6)
        return super().forward(x)


class RaisesAtOddSizes(Right):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.n_experts & (self.n_experts - 1):
            raise RuntimeError(f"n_experts={self.n_experts} must be a power of 2")
        return super().forward(x)


class ReturnsNone(Right):
    def forward(self, x: Tensor) -> None:  # type: ignore[override]
        super().forward(x)


class Spins(Right):
    def forward(self, x: Tensor) -> NoReturn:  # type: ignore[override]
        while True:
            pass


class WantsMoreInFactory(Right):
    def __init__(self, d_model: int, n_experts: int, top_k: int, dropout: float) -> None:
        super().__init__(d_model, n_experts, top_k)


def not_a_module(d_model: int, n_experts: int, top_k: int) -> Any:
    return Right
