"""Use a set-up and leave it as it was: weights, gradients, buffers, optimizer, scheduler, torch's global state.

Tensors, dicts and lists keep their identity: their old contents are written back into them.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mue_check.audit.setup import SetUp
from mue_check.global_state import preserved_torch


@contextmanager
def preserved(setup: SetUp, *, weights: bool = True) -> Iterator[None]:
    """Undo at the end all changes to the set-up. Gradients start as None.

    Without ``weights`` the caller preserves the optimizer's parameters and their gradients, which saves the memory
    of a copy.
    """
    # an optimizer can hold parameters that are not the model's
    of_model, in_groups = list(setup.model.parameters()), [p for g in setup.groups for p in g["params"]]
    held = {id(p): p for p in [*of_model, *in_groups]}
    copied = list(held.values())
    if not weights:
        # an optimizer that holds copies may write them back into the model
        stepped = {id(p) for p in in_groups}
        copied = [] if stepped <= {id(p) for p in of_model} else [p for p in of_model if id(p) not in stepped]
    with ExitStack() as undo:
        undo.enter_context(preserved_torch())
        _remember_model(undo, setup.model)
        for p in copied:
            _remember_tensor(undo, p)
        done = set(held)
        for part in (*setup.optimizers, *setup.schedulers):
            _remember(undo, part, done)
        yield


@contextmanager
def preserved_model(model: nn.Module) -> Iterator[None]:
    """The same for a model alone, in evaluation mode: for a forward pass."""
    with ExitStack() as undo:
        undo.enter_context(preserved_torch())
        _remember_model(undo, model)
        model.eval()
        yield


def _remember_model(undo: ExitStack, model: nn.Module) -> None:
    """Buffers and modes."""
    for module in model.modules():
        undo.callback(setattr, module, "training", module.training)
        for buffer in module._buffers.values():
            if buffer is not None:
                _remember_tensor(undo, buffer)
        _remember_dict(undo, module._buffers)


def _remember_tensor(undo: ExitStack, tensor: Tensor) -> None:
    value, gradient = tensor.detach().clone(), tensor.grad
    if tensor.is_leaf:
        tensor.grad = None

    def restore() -> None:
        with torch.no_grad():
            tensor.copy_(value)
        if tensor.is_leaf:
            tensor.grad = gradient

    undo.callback(restore)


def _remember_dict(undo: ExitStack, value: dict[Any, Any]) -> None:
    items = list(value.items())

    def restore() -> None:
        value.clear()
        value.update(items)

    undo.callback(restore)


def _remember(undo: ExitStack, value: object, done: set[int]) -> None:
    """Remember ``value`` and everything inside it, except objects whose ids are in ``done``."""
    if id(value) in done:
        return
    if isinstance(value, tuple):
        for item in value:
            _remember(undo, item, done)
        return
    if isinstance(value, Tensor):
        _remember_tensor(undo, value)
    elif isinstance(value, dict):
        _remember_dict(undo, value)
    elif isinstance(value, list | deque):
        items = list(value)
        undo.callback(value.extend, items)
        undo.callback(value.clear)  # callbacks run last to first
    elif hasattr(value, "step") and hasattr(value, "__dict__") and not isinstance(value, nn.Module | type):
        # optimizers, schedulers, and schedulers within schedulers
        _remember(undo, vars(value), done)
        return
    else:
        return
    done.add(id(value))
    if not isinstance(value, Tensor):
        for item in value.values() if isinstance(value, dict) else value:
            _remember(undo, item, done)
