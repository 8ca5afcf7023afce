"""What an optimizer's step does to each parameter, found by stepping it on stand-ins of one number.

A stand-in takes the parameter's place for a moment, in float64, so the user's weights are never touched and decay of
1e-7 per step still shows. From fresh moments Adam moves a weight w with gradient g by lr g / (|g| + eps) + lr wd w:
three steps give lr, wd and eps, and what happens after the gradient stops tells whether the betas are the group's.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mue_check.audit.restore import preserved
from mue_check.audit.setup import SetUp, said

_SMALL = 1e-8
"""A gradient near the usual eps, so that eps shows."""
_USUAL, _BIG = 1e6, 1e9
"""Gradients beside which no eps is anything."""
_NO_DECAY = 1e-9
_SAME = 1e-3
"""Two steps are alike to this; float64 knows them better."""
_OTHER = "its update is not AdamW's, and there is no rule for it"


@dataclass(frozen=True, kw_only=True)
class Update:
    """The values that act on one parameter; ``why`` says why they are not known (then they are NaN).

    ``idle``: its learning rate is not 0, and the step does nothing to it.
    """

    lr: float = math.nan
    weight_decay: float = math.nan
    eps: float = math.nan
    beta1: float = math.nan
    beta2: float = math.nan
    why: str = ""
    idle: bool = False


def measure_updates(setup: SetUp) -> dict[int, Update]:
    """id(parameter) -> Update, for every parameter in a group, at the learning rates that the groups have now."""
    groups = setup.groups
    held = list({id(p): p for group in groups for p in group["params"]}.values())
    try:
        with preserved(setup, weights=False), stand_ins(held):
            step = _Stepper(setup, held)
            first, later, latest = step(0.0, [_USUAL, 0.0, 0.0])
            big = step(0.0, [_BIG])[0]
            decayed = step(1.0, [_USUAL])[0]
            starved = step(0.0, [_SMALL])[0]
    except Exception as error:
        # optimizers are the user's own code, and anything can be raised there
        return {id(p): Update(why=f"the optimizer's step cannot be probed: {said(error)}") for p in held}
    out: dict[int, Update] = {}
    for group in groups:
        for p in group["params"]:
            i = id(p)
            out[i] = _solve(group, first[i], big[i], decayed[i], starved[i], (later[i], latest[i]))
    return out


def _solve(
    group: Mapping[str, Any], first: float, big: float, decayed: float, starved: float, after: tuple[float, float]
) -> Update:
    if first == 0:
        lr = float(group.get("lr", math.nan))
        return Update(lr=0.0) if lr == 0 else Update(why="the optimizer's step does not move it", idle=True)
    betas = group.get("betas")
    if not math.isclose(first, big, rel_tol=_SAME) or not isinstance(betas, Sequence) or len(betas) != 2:
        return Update(why=_OTHER)
    beta1, beta2 = float(betas[0]), float(betas[1])
    # beside a gradient of 1e9 eps is nothing, and lr is the step itself
    weight_decay = (decayed - first) / big
    weight_decay = weight_decay if abs(weight_decay) > _NO_DECAY else 0.0
    at = -first
    for count, moved in enumerate(after, start=2):
        expected = big * (_after_silence(beta1, beta2, count) + weight_decay * at)
        if not math.isclose(moved, expected, rel_tol=0.01, abs_tol=1e-12 * abs(big)):
            return Update(why=_OTHER)
        at -= moved
    eps = _SMALL * (big / starved - 1) if starved else math.inf
    return Update(lr=big, weight_decay=weight_decay, eps=eps, beta1=beta1, beta2=beta2)


def _after_silence(beta1: float, beta2: float, count: int) -> float:
    """Adam's step ``count`` over lr, after one gradient and then zeros."""
    first = beta1 ** (count - 1) * (1 - beta1) / (1 - beta1**count)
    second = beta2 ** (count - 1) * (1 - beta2) / (1 - beta2**count)
    return first / math.sqrt(second) if second else 0.0


class _Stepper:
    """Steps from fresh moments; each call gives, per gradient, how far every stand-in moved down."""

    def __init__(self, setup: SetUp, held: Sequence[Tensor]) -> None:
        self._setup, self._held = setup, held

    def __call__(self, weights: float, gradients: Sequence[float]) -> list[dict[int, float]]:
        self._setup.forget()
        with torch.no_grad():
            for p in self._held:
                p.fill_(weights)
        moved = []
        for gradient in gradients:
            before = {id(p): float(p.detach()) for p in self._held}
            for p in self._held:
                p.grad = torch.full_like(p, gradient)
            for optimizer in self._setup.optimizers:
                optimizer.step()
            moved.append({id(p): before[id(p)] - float(p.detach()) for p in self._held})
        return moved


@contextmanager
def stand_ins(held: Sequence[Tensor]) -> Iterator[None]:
    """Each tensor is one number in float64 for a while, and then itself again, with its own storage and gradient."""
    saved = [(p, p.data, p.grad) for p in held]
    try:
        for p in held:
            dtype = torch.float32 if p.device.type == "mps" else torch.float64
            p.grad = None
            p.data = torch.zeros((1,) * p.ndim, dtype=dtype, device=p.device)
        yield
    finally:
        for p, data, gradient in saved:
            p.grad = None
            p.data = data
            p.grad = gradient
