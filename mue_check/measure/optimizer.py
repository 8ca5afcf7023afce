"""What the optimizer does to each parameter, found by probing: do the values that a rule prescribes arrive?

It is exact where activations show nothing: weight decay, eps and betas. The probes run at a step after the first,
when a scheduler that overwrites a group has done so.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from mue_check.data import Data
from mue_check.measure.measurement import Measurement, Passes, Row, by_columns
from mue_check.measure.stacks import stack_of
from mue_check.records import Cell, Columns
from mue_check.training import Stack

PROBED_STEP = 2
_STARVED = 10.0
"""A gradient in units of the base eps, so small that eps shows in the update."""


def measure_optimizer(cell: Cell, data: Data) -> Columns:
    """Columns role, parameter, numbers, init_std, lr, weight_decay, eps, beta1, beta2: one row per parameter of run 0.

    ``init_std`` is the RMS of ``numbers`` drawn entries; 0 where the parameter starts as a constant.
    """
    return by_columns(_rows(stack_of(cell, data)[0]))


def _rows(stack: Stack) -> Iterator[Row]:
    stack.counter.fill_(PROBED_STEP)
    multiplier, bias1, bias2 = (float(v) for v in stack.optimizer.table[PROBED_STEP])
    drawn = {
        p.name: 0.0
        if p.constant is not None
        else float(stack.state.parameters[p.name][0].detach().double().square().mean().sqrt())
        for p in stack.state.declared
    }

    stepped = _update(stack, weights=0.0, gradient=1.0)
    beta1, beta2 = 1 - _first(stack, stack.state.first), 1 - _first(stack, stack.state.second)
    decayed = _update(stack, weights=1.0, gradient=0.0)
    tiny = _STARVED * stack.base.eps
    starved = _update(stack, weights=0.0, gradient=tiny)

    for p in stack.state.declared:
        # update = lr * multiplier * m bias1 / (sqrt(v) bias2 + eps), with m and v after one gradient g
        m, root_v = (1 - beta1) * bias1, (1 - beta2) ** 0.5 * bias2
        lr = stepped[p.name] * root_v / (m * multiplier)  # eps is negligible against a gradient of 1
        eps = lr * multiplier * m * tiny / starved[p.name] - root_v * tiny
        yield {
            "role": str(p.role),
            "parameter": p.name,
            "numbers": stack.state.parameters[p.name][0].numel(),
            "init_std": drawn[p.name],
            "lr": lr,
            "weight_decay": decayed[p.name] / (lr * multiplier),
            "eps": eps,
            "beta1": beta1,
            "beta2": beta2,
        }


@torch.no_grad()
def _update(stack: Stack, *, weights: float, gradient: float) -> dict[str, float]:
    """How far one optimizer step moves each parameter down, from fresh moments."""
    state = stack.state
    state.flat.fill_(weights)
    state.gradient.fill_(gradient)
    state.first.zero_()
    state.second.zero_()
    stack.optimizer.step(stack.counter)
    return {name: weights - float(value[0].flatten()[0]) for name, value in state.parameters.items()}


def _first(stack: Stack, moment: Tensor) -> float:
    """A moment after a gradient of 1, which is the same everywhere."""
    return float(moment[0])


OPTIMIZER = Measurement(measure=measure_optimizer, passes=lambda cell: Passes(updates=3), by_run=False)
