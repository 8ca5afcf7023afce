"""Lend out a set-up and give it back as it was: weights, gradients, buffers, optimizer, scheduler, random state.

Tensors, dicts and lists keep their identity: their old contents are written back into them.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from mue_check.audit.setup import SetUp

Undo = Callable[[], None]


@contextmanager
def preserved(setup: SetUp, *, weights: bool = True) -> Iterator[None]:
    """Whatever is done inside with the set-up is undone at the end; inside, gradients start as None.

    Without ``weights`` the caller answers for parameters in groups and their gradients, and no memory goes to copies
    of them.
    """
    # an optimizer can hold parameters that are not the model's
    own, in_groups = list(setup.model.parameters()), [p for g in setup.groups for p in g["params"]]
    held = {id(p): p for p in [*own, *in_groups]}
    copied = list(held.values())
    if not weights:
        # one that holds copies may write them back into the model
        stepped = {id(p) for p in in_groups}
        copied = [] if stepped <= {id(p) for p in own} else [p for p in own if id(p) not in stepped]
    undo = [_remember_model(setup.model), *(_remember_tensor(p) for p in copied)]
    keep, seen = set(held), set[int]()
    undo += [_remember(part, keep, seen) for part in (*setup.optimizers, *setup.schedulers)]
    numbers, state = np.random.get_state(), random.getstate()  # noqa: NPY002 - it is the user's global state
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        for step in undo:
            step()
        np.random.set_state(numbers)  # noqa: NPY002
        random.setstate(state)


@contextmanager
def preserved_model(model: nn.Module) -> Iterator[None]:
    """The same for a model alone, put into evaluation mode: for a forward pass."""
    undo = _remember_model(model)
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=cuda):
            model.eval()
            yield
    finally:
        undo()


def _remember_model(model: nn.Module) -> Undo:
    """Buffers and modes."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    undo = [_remember_tensor(b) for _, held in buffers for b in held.values() if b is not None]

    def back() -> None:
        for module, training in modes:
            module.training = training
        for module, held in buffers:
            module._buffers.clear()
            module._buffers.update(held)
        for step in undo:
            step()

    return back


def _remember_tensor(tensor: Tensor) -> Undo:
    value, gradient = tensor.detach().clone(), tensor.grad
    if tensor.is_leaf:
        tensor.grad = None

    def back() -> None:
        with torch.no_grad():
            tensor.copy_(value)
        if tensor.is_leaf:
            tensor.grad = gradient

    return back


def _remember(value: object, keep: set[int], seen: set[int]) -> Undo:
    """What puts ``value`` back, in place and all the way down; tensors in ``keep`` are left to others."""
    if id(value) in seen or id(value) in keep:
        return _nothing
    if isinstance(value, Tensor):
        seen.add(id(value))
        return _remember_tensor(value)
    if isinstance(value, dict):
        seen.add(id(value))
        items = list(value.items())
        inner = [_remember(held, keep, seen) for _, held in items]
        return _all([lambda: value.clear(), lambda: value.update(items), *inner])
    if isinstance(value, list | deque):
        seen.add(id(value))
        held_in_order = list(value)
        inner = [_remember(held, keep, seen) for held in held_in_order]
        return _all([lambda: value.clear(), lambda: value.extend(held_in_order), *inner])
    if isinstance(value, tuple):
        return _all([_remember(held, keep, seen) for held in value])
    if hasattr(value, "step") and hasattr(value, "__dict__") and not isinstance(value, nn.Module | type):
        # optimizers, schedulers, and schedulers within schedulers
        return _remember(vars(value), keep, seen)
    return _nothing


def _all(steps: list[Undo]) -> Undo:
    def back() -> None:
        for step in steps:
            step()

    return back


def _nothing() -> None:
    """Nothing was changed."""
