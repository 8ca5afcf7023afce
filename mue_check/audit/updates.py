"""The learning rate, weight decay, eps and betas that an optimizer's step really applies to each parameter.

The optimizer steps stand-ins: each parameter becomes one float64 number for a while. The user's weights are never
touched, and a decay of 1e-7 per step still shows. With fresh moments Adam moves a weight w with gradient g by
lr g / (|g| + eps) + lr wd w. Three steps give lr, wd and eps. Two more steps without a gradient show whether the
betas are the group's.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mue_check.audit.restore import preserved
from mue_check.audit.setup import SetUp
from mue_check.user_code import describe_error

_SMALL = 1e-8
"""A gradient near the usual eps, so that eps shows."""
_USUAL, _BIG = 1e6, 1e9
"""Gradients so large that eps does not matter."""
_NO_DECAY = 1e-9
_SAME = 1e-3
"""Relative difference up to which two steps count as equal; float64 is far more precise."""
_OTHER = "its update is not AdamW's, and no rule covers it"


@dataclass(frozen=True, kw_only=True)
class EffectiveValues:
    """The values that act on one parameter. ``why`` says why they are unknown (then they are NaN).

    ``idle``: its learning rate is not 0, and the step does not move it.
    """

    lr: float = math.nan
    weight_decay: float = math.nan
    eps: float = math.nan
    beta1: float = math.nan
    beta2: float = math.nan
    why: str = ""
    idle: bool = False


def measure_updates(setup: SetUp) -> dict[int, EffectiveValues]:
    """id(parameter) -> values, for every parameter in a group, at the groups' current learning rates."""
    groups = setup.groups
    parameters = list({id(p): p for group in groups for p in group["params"]}.values())
    try:
        with preserved(setup, weights=False), stand_ins(parameters):
            first, second, third = _steps(setup, parameters, 0.0, [_USUAL, 0.0, 0.0])
            (big,) = _steps(setup, parameters, 0.0, [_BIG])
            (decayed,) = _steps(setup, parameters, 1.0, [_USUAL])
            (small,) = _steps(setup, parameters, 0.0, [_SMALL])
    except Exception as error:
        # optimizers are the user's code and may raise anything
        why = f"the optimizer's step cannot be probed: {describe_error(error)}"
        return {id(p): EffectiveValues(why=why) for p in parameters}
    return {
        i: _solve(group, first[i], big[i], decayed[i], small[i], (second[i], third[i]))
        for group in groups
        for i in map(id, group["params"])
    }


def _steps(
    setup: SetUp, parameters: Sequence[Tensor], start: float, gradients: Sequence[float]
) -> list[dict[int, float]]:
    """For each gradient, how far every stand-in moved down. Moments start fresh, weights at ``start``."""
    setup.clear_moments()
    with torch.no_grad():
        for p in parameters:
            p.fill_(start)
    moves = []
    for gradient in gradients:
        before = {id(p): float(p.detach()) for p in parameters}
        for p in parameters:
            p.grad = torch.full_like(p, gradient)
        for optimizer in setup.optimizers:
            optimizer.step()
        moves.append({id(p): before[id(p)] - float(p.detach()) for p in parameters})
    return moves


def _solve(
    group: Mapping[str, Any], first: float, big: float, decayed: float, small: float, coasting: tuple[float, float]
) -> EffectiveValues:
    """The values, from the steps at each gradient and from two steps without one (``coasting``)."""
    if first == 0:
        lr = float(group.get("lr", math.nan))
        if lr == 0:
            return EffectiveValues(lr=0.0)
        return EffectiveValues(why="the optimizer's step does not move it", idle=True)
    betas = group.get("betas")
    if not math.isclose(first, big, rel_tol=_SAME) or not isinstance(betas, Sequence) or len(betas) != 2:
        return EffectiveValues(why=_OTHER)
    beta1, beta2 = float(betas[0]), float(betas[1])
    # next to a gradient of 1e9 eps vanishes, and the step is lr itself
    weight_decay = (decayed - first) / big
    weight_decay = weight_decay if abs(weight_decay) > _NO_DECAY else 0.0
    at = -first
    for count, moved in enumerate(coasting, start=2):
        expected = big * (_coasting_step(beta1, beta2, count) + weight_decay * at)
        if not math.isclose(moved, expected, rel_tol=0.01, abs_tol=1e-12 * abs(big)):
            return EffectiveValues(why=_OTHER)
        at -= moved
    eps = _SMALL * (big / small - 1) if small else math.inf
    return EffectiveValues(lr=big, weight_decay=weight_decay, eps=eps, beta1=beta1, beta2=beta2)


def _coasting_step(beta1: float, beta2: float, count: int) -> float:
    """Adam's step number ``count`` over lr, after one gradient and then zeros."""
    first = beta1 ** (count - 1) * (1 - beta1) / (1 - beta1**count)
    second = beta2 ** (count - 1) * (1 - beta2) / (1 - beta2**count)
    return first / math.sqrt(second) if second else 0.0


@contextmanager
def stand_ins(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Make each tensor one float64 number for a while; then give it back its own storage and gradient."""
    saved = [(p, p.data, p.grad) for p in parameters]
    try:
        for p in parameters:
            dtype = torch.float32 if p.device.type == "mps" else torch.float64
            p.grad = None
            p.data = torch.zeros((1,) * p.ndim, dtype=dtype, device=p.device)
        yield
    finally:
        for p, data, gradient in saved:
            p.grad = None
            p.data = data
            p.grad = gradient
