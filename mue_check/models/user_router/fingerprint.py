"""A fingerprint of what a router does. It is in its name: sources miss data files, checkpoints and variables it reads.

The router is built at fixed sizes, given fixed weights and fixed tokens on the CPU, and called in training and in eval
mode. The fingerprint covers what it returns, its buffers and its gradients. Floating-point tensors enter through their
norm and a few projections, rounded, so that another processor or number of threads gives the same fingerprint.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call

from mue_check.errors import ClaimError
from mue_check.global_state import preserved_globals
from mue_check.models.user_router.examine import (
    build,
    drawn_tensors,
    is_trained,
    require_unchanged,
    start_of,
    untrained_tensors,
)
from mue_check.models.user_router.sources import digits
from mue_check.routing.adapter import Size, leaves_of
from mue_check.routing.factory import SHAPES, Candidate, Shape
from mue_check.user_code import no_exit

TOKENS = 40
_SHAPES = (
    *SHAPES[:2],
    Shape(d=32, f=0, experts=16, activated=4, tokens=TOKENS),
    Shape(d=64, f=0, experts=32, activated=8, tokens=TOKENS),
)
"""Two small sizes, and two that tiers use."""
_MODES = (True, True, False)
"""Training mode of each call: what a training step changes in the buffers shows in the next call."""
_STEPS = 4096
"""Of the rounding, relative to a tensor's norm: far above float32's error, far below what moves an optimum."""
_TINY = 1e-3
"""Norms below it are rounded as this one: a gradient that should be 0 is noise."""
_PROJECTIONS = 3


def fingerprint(candidate: Candidate, shapes: Sequence[Shape] = _SHAPES) -> str:
    """Digits that are equal in every process as long as the router behaves equally at these sizes.

    ClaimError where two tries differ although weights, tokens and seed are the same: no run of it could be repeated.
    """
    with preserved_globals() as changes:
        warnings.simplefilter("ignore")
        first, second = ([*_seen_at_all(candidate, shapes)] for _ in range(2))
    require_unchanged(changes)
    if first != second:
        raise ClaimError(
            "gives other results for the same weights, tokens and torch seed, so that no run could be repeated: "
            "draw its random numbers with torch, and keep no state outside the module"
        )
    return digits(*first)


def _seen_at_all(candidate: Candidate, shapes: Sequence[Shape]) -> Iterator[str]:
    for shape in candidate.shapes(shapes):
        yield str(shape)
        try:
            with torch.random.fork_rng(devices=[]), no_exit(), torch.enable_grad():
                seen = [*_seen(candidate, shape)]
            yield from seen
        except Exception as error:  # a user's module may raise anything; where a run needs this size, it is told there
            yield type(error).__name__


def _seen(candidate: Candidate, shape: Shape) -> Iterator[str]:
    module, other = build(candidate, shape, 0), dict(build(candidate, shape, 1).named_parameters())
    untrained = untrained_tensors(module)
    for name, p in module.named_parameters():
        yield f"{name} {list(p.shape)} {start_of(p, other[name]) if is_trained(p) and p.dim() < 2 else ''}"
    yield from _all_numbers(untrained)
    tensors, x_RMD = drawn_tensors(module, untrained, shape.d, shape.tokens)
    state = {name: value[0].detach().requires_grad_(value.requires_grad) for name, value in tensors.items()}
    leaves = {name: value for name, value in state.items() if value.requires_grad}
    size = Size(tokens=shape.tokens, experts=shape.experts, activated=shape.activated)
    for training in _MODES:
        torch.manual_seed(0)
        x_MD = x_RMD[0].detach().requires_grad_()
        module.train(training)
        # a copy, as the call may change its tokens in place; new values of buffers are left in the state
        found = {str(path): leaf for path, leaf in leaves_of(functional_call(module, state, (x_MD.clone(),)), size)}
        yield from _all_numbers(found)
        yield from _all_numbers({name: value for name, value in state.items() if name not in leaves})
        reached = [_projection(part, 0) for part in found.values() if part.requires_grad]
        if reached:
            wanted = [x_MD, *leaves.values()]
            gradients = torch.autograd.grad(torch.stack(reached).sum(), wanted, allow_unused=True)
            named = zip(("x", *leaves), gradients, strict=True)
            yield from _all_numbers({name: gradient for name, gradient in named if gradient is not None})


def _all_numbers(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    for name, tensor in tensors.items():
        yield f"{name} {list(tensor.shape)} {_numbers(tensor.detach())}"


def _numbers(tensor: Tensor) -> list[object]:
    """Whole numbers as they are, others as rounded norm and projections."""
    if not tensor.is_floating_point():
        found: list[object] = tensor.flatten().tolist()
        return found
    finite = tensor.double().nan_to_num(0.0, 0.0, 0.0)
    norm = max(float(finite.norm()), _TINY)
    shown = [math.log2(norm), *(float(_projection(finite, i)) / norm for i in range(_PROJECTIONS))]
    return [int((~tensor.isfinite()).sum()), *(round(number * _STEPS) for number in shown)]


def _projection(tensor: Tensor, seed: int) -> Tensor:
    """The sum of all entries, each times a fixed random number."""
    drawn = torch.randn(tensor.numel(), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (tensor.double().flatten() * drawn).sum()
