"""Models inside other modules: torch.compile, DistributedDataParallel, FSDP and their like."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

_HOLDERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def inner(model: nn.Module) -> nn.Module:
    """The model itself: what a module holds that has one child under a wrapper's name, and no parameter of its own."""
    *_, last = _inwards(model)
    return last


def carried(model: object, attribute: str) -> object:
    """An attribute of the model or of what it wraps; None without one. DistributedDataParallel passes none on."""
    for layer in _inwards(model) if isinstance(model, nn.Module) else (model,):
        value: object = getattr(layer, attribute, None)
        if value is not None:
            return value
    return None


def uncompiled() -> AbstractContextManager[None]:
    """Compiled modules run as they were written: compiling takes a minute, and changes nothing that is asked here."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()  # nothing was compiled, and importing what compiles takes seconds
    made: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return made


def _inwards(model: nn.Module) -> Iterator[nn.Module]:
    while True:
        yield model
        children = dict(model.named_children())
        holder = next(iter(children), "")
        if len(children) != 1 or holder not in _HOLDERS or any(True for _ in model.parameters(recurse=False)):
            return
        model = children[holder]
