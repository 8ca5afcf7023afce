"""The learning rate, weight decay, eps and betas that an optimizer's step really applies to each parameter.

The optimizer steps stand-ins: each parameter becomes one float64 number for a while. The user's weights are never
touched, and a decay of 1e-7 per step still shows. With fresh moments Adam moves a weight w with gradient g by
lr g / (|g| + eps) + lr wd w. Three steps give lr, wd and eps. Two more steps, with a small gradient and with none, show
whether the betas are the group's, and whether the step shrinks a large gradient before it uses it.
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
"""Gradients so large that eps does not matter, and that every clipping shrinks."""
_UNCLIPPED = 1e-2
"""A gradient so small that clipping leaves it as it is."""
_CLIPPED = 3e-3
"""A larger ratio of the two is no error of rounding in an optimizer's state: clipped to a norm of 3 at most."""
_NO_DECAY = 1e-9
_SAME = 1e-3
"""Relative difference up to which two steps count as equal; float64 is far more precise."""
_OTHER = "its update is not AdamW's, and no rule covers it"


@dataclass(frozen=True, kw_only=True)
class EffectiveValues:
    """The values that act on one parameter. ``why`` says why they are unknown (then they are NaN).

    ``idle``: its learning rate is not 0, and the step does not move it. ``clips``: what a small gradient is to a very
    large one after the step has clipped it; 0 if it does not clip. ``power``: for a step that makes every gradient an
    orthogonal matrix (Muon), the power of the matrix's size with which the spectral norm of the step grows; NaN for
    AdamW.
    """

    lr: float = math.nan
    weight_decay: float = math.nan
    eps: float = math.nan
    beta1: float = math.nan
    beta2: float = math.nan
    why: str = ""
    idle: bool = False
    clips: float = 0.0
    power: float = math.nan

    @property
    def is_muon(self) -> bool:
        """Whether its step is Muon's; then ``lr`` is what the group states."""
        return not math.isnan(self.power)


def measure_updates(setup: SetUp) -> dict[int, EffectiveValues]:
    """id(parameter) -> values, for every parameter in a group, at the groups' current learning rates."""
    try:
        with preserved(setup, weights=False), stand_ins(setup) as parameters:
            precisions = {id(p): torch.finfo(p.dtype).eps for p in parameters}
            first, second, third = _steps(setup, parameters, 0.0, [_USUAL, _UNCLIPPED, 0.0])
            (big,) = _steps(setup, parameters, 0.0, [_BIG])
            (decayed,) = _steps(setup, parameters, 1.0, [_USUAL])
            (small,) = _steps(setup, parameters, 0.0, [_SMALL])
        values = {
            id(p): _solve(group, precisions[i], first[i], big[i], decayed[i], small[i], (second[i], third[i]))
            for group in setup.groups
            for p in group["params"]
            for i in [id(p)]
        }
        if any(v.why == _OTHER for v in values.values()):
            values |= _solve_muon(setup, values, {i: decayed[i] - first[i] for i in values})
        return values
    except Exception as error:
        # optimizers are the user's code and may raise anything
        why = f"the optimizer's step cannot be probed: {describe_error(error)}"
        return {id(p): EffectiveValues(why=why) for group in setup.groups for p in group["params"]}


def _solve_muon(
    setup: SetUp, values: Mapping[int, EffectiveValues], decays: Mapping[int, float]
) -> dict[int, EffectiveValues]:
    """The values of matrices whose step is Muon's, which shows on matrices of two sizes and not on single numbers."""
    entries = [torch.zeros(side, side) for side in (8, 16)]
    for gradient in entries:
        gradient[0, 0] = 1.0
    # singular values of 1.5 and 0.5; exact in bfloat16, in which Muon iterates
    pairs = torch.kron(torch.eye(4), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    small, large, spread = (_matrix_step(setup, gradient) for gradient in (*entries, pairs))
    out = {}
    for group in setup.groups:
        for p in group["params"]:
            i, lr = id(p), float(group.get("lr", math.nan))
            if values[i].why != _OTHER or p.ndim < 2 or not lr:
                continue
            singular = torch.linalg.svdvals(spread[i])
            # those of an orthogonal matrix are equal, to the precision of Muon's iteration
            if float(singular[-1] / singular[0]) > 0.6:
                power = math.log2(float(large[i].norm() / small[i].norm()))
                out[i] = EffectiveValues(lr=lr, weight_decay=decays[i] / lr, power=round(2 * power) / 2)
    return out


def _matrix_step(setup: SetUp, gradient: Tensor) -> dict[int, Tensor]:
    """How far a first step with this gradient [N, N] moves every matrix down, in place of its real size."""
    with preserved(setup, weights=False), stand_ins(setup, side=len(gradient)) as parameters:
        setup.clear_moments()
        for p in parameters:
            p.grad = (gradient if p.ndim > 1 else gradient[0, :1]).to(p).expand_as(p).clone()
        for optimizer in setup.optimizers:
            optimizer.step()
        side = len(gradient)
        return {id(p): -p.detach().double().cpu().reshape(-1, side, side)[0] for p in parameters if p.ndim > 1}


def _steps(
    setup: SetUp, parameters: Sequence[Tensor], start: float, gradients: Sequence[float]
) -> list[dict[int, float]]:
    """For each gradient, how far every stand-in moved down. Moments start fresh, weights at ``start``.

    In a series of several, each parameter has its own multiple of the gradients: no two groups have the same norm.
    """
    setup.clear_moments()
    with torch.no_grad():
        for p in parameters:
            p.fill_(start)
    moves = []
    for gradient in gradients:
        before = {id(p): float(p.detach()) for p in parameters}
        for i, p in enumerate(parameters):
            p.grad = torch.full_like(p, gradient * (1 + i / len(parameters) if len(gradients) > 1 else 1))
        for optimizer in setup.optimizers:
            optimizer.step()
        moves.append({id(p): before[id(p)] - float(p.detach()) for p in parameters})
    return moves


def _solve(
    group: Mapping[str, Any],
    precision: float,
    first: float,
    big: float,
    decayed: float,
    small: float,
    later: tuple[float, float],
) -> EffectiveValues:
    """The values, from the steps at each gradient, and from the two steps after the first (``later``)."""
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
    stated = float(group.get("weight_decay", 0.0))
    if abs(weight_decay - stated) <= precision / big:
        weight_decay = stated  # a float32 shows no more
    weight_decay = weight_decay if abs(weight_decay) > _NO_DECAY else 0.0
    second, third = later
    ratio = _ratio_of_gradients(beta1, beta2, second / big + weight_decay * first)
    expected = _third_step(beta1, beta2, ratio) - weight_decay * (first + second)
    if not math.isclose(third, big * expected, rel_tol=0.01, abs_tol=1e-12 * abs(big)):
        return EffectiveValues(why=_OTHER)
    eps = _SMALL * (big / small - 1) if small else math.inf
    clips = ratio if ratio > _CLIPPED else 0.0
    return EffectiveValues(lr=big, weight_decay=weight_decay, eps=eps, beta1=beta1, beta2=beta2, clips=clips)


def _ratio_of_gradients(beta1: float, beta2: float, moved: float) -> float:
    """The second gradient over the first, from Adam's second step over lr; 0 if the step does not show it."""
    # moved^2 v = m^2 with m = (beta1 + r) / (1 + beta1) and v = (beta2 + r^2) / (1 + beta2)
    k = moved**2 * (1 + beta1) ** 2 / (1 + beta2)
    constant = beta1**2 - k * beta2
    root = beta1**2 - (1 - k) * constant
    below = beta1 + math.sqrt(max(0.0, root))
    return max(0.0, -constant / below) if below else 0.0


def _third_step(beta1: float, beta2: float, ratio: float) -> float:
    """Adam's third step over lr, after gradients of 1, ``ratio`` and 0."""
    m = beta1 * (beta1 + ratio) / (1 + beta1 + beta1**2)
    v = beta2 * (beta2 + ratio**2) / (1 + beta2 + beta2**2)
    return m / math.sqrt(v) if v else 0.0


@contextmanager
def stand_ins(setup: SetUp, *, keep_dtype: bool = False, side: int = 1) -> Iterator[Sequence[Tensor]]:
    """Make each tensor that a step may read or write one number for a while; then give it back its own storage.

    The number is a float64, which shows the smallest decay, unless its dtype is to be kept or is that of a copy. With
    ``side`` each matrix becomes one of this size.
    """
    parameters = setup.stepped
    dtypes = {i: copy.dtype for p, copy in setup.copies.items() for i in (p, id(copy))}
    saved = [(p, p.data, p.grad) for p in parameters]
    try:
        for p in parameters:
            dtype = dtypes.get(id(p), torch.float32 if p.device.type == "mps" else torch.float64)
            p.grad = None
            size = [1] * (p.ndim - 2) + [side] * 2 if p.ndim > 1 else [1] * p.ndim
            p.data = torch.zeros(size, dtype=p.dtype if keep_dtype else dtype, device=p.device)
        yield parameters
    finally:
        for p, data, gradient in saved:
            p.grad = None
            p.data = data
            p.grad = gradient
