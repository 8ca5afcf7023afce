"""A candidate with one kind of hostile code, named by the variable HOSTILE: ``KIND:right`` or ``KIND:wrong``.

Without the hostile code the right candidate passes, and the wrong one fails: a pass of the wrong one is a false pass.
"""

import os
from typing import Any

from torch import Tensor, nn

from mue_check.mutants.routing import blocks, gates, selection
from mue_check.mutants.setups.workbench import SetUpParts, Workbench
from mue_check.routing.claim import RoutingSpec
from mue_check.rules.roles import HIDDEN
from tests.reliability.hostile_code import KINDS

_name, _, _base = os.environ["HOSTILE"].partition(":")
_kind = KINDS[_name]
_RIGHT = _base == "right"


def _at(place: str, *given: Any) -> Any:
    """Do it, if this is the place."""
    return _kind.act(*given) if _kind.place == place else given[0] if given else None


class _Hostile(nn.Module):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        _at("build")

    def forward(self, x: Tensor) -> Any:
        _at("forward")
        found = super().forward(x)
        first, *others = found if isinstance(found, tuple) else (found,)
        if first.requires_grad and _kind.place == "backward":
            first.register_hook(lambda gradient: _at("backward"))
        first = _at("output", first)
        return (first, *others) if others else first

    def __del__(self) -> None:
        _at("delete")


class _Claim(dict[str, Any]):
    def get(self, key: str, default: Any = None) -> Any:
        return _at("claim")

    def keys(self) -> Any:
        return _at("claim")


_at("import")


class Router(_Hostile, gates.CompleteMueRouter if _RIGHT else selection.UnnormalizedSigmoid):
    """A router."""

    routing_spec: Any = _Claim() if _kind.place == "claim" else RoutingSpec()


class Block(_Hostile, blocks.CompleteMueBlock if _RIGHT else blocks.OutputsNotWeighted):
    """A block."""

    if _kind.place == "claim":
        routing_spec: Any = _Claim()


def build() -> SetUpParts:
    """A set-up for the audit."""
    bench = Workbench.right()
    if not _RIGHT:
        bench.set(HIDDEN, lr=1.0)
    model, optimizer, scheduler, loss = bench.finish()
    _at("build")
    forward, step, schedule = model.forward, optimizer.step, scheduler.step

    def hostile_forward(*arguments: Any) -> Any:
        _at("forward")
        return _at("output", forward(*arguments))

    def hostile_loss() -> Tensor:
        _at("loss")
        value = loss()
        if _kind.place == "backward":
            value.register_hook(lambda gradient: _at("backward"))
        return value

    def hostile_step(*arguments: Any) -> Any:
        _at("step")
        return step(*arguments)

    def hostile_schedule(*arguments: Any) -> Any:
        _at("schedule")
        return schedule(*arguments)

    model.forward, optimizer.step, scheduler.step = hostile_forward, hostile_step, hostile_schedule
    return model, optimizer, scheduler, hostile_loss
