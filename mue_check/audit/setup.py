"""The user's set-up: model, optimizers, schedulers and loss, as given or as a factory returns them."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mue_check.errors import MueCheckError, with_article
from mue_check.global_state import guarded_import
from mue_check.user_code import describe_error, import_user_module, no_exit

Loss = Callable[[], Tensor]
"""Runs one batch through the model and returns a scalar loss."""
WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Names that torch.compile, FSDP and activation checkpointing give to the module they wrap."""
_RETURNS = "(model, optimizer), (model, optimizer, scheduler) or (model, optimizer, scheduler, loss)"


class AuditError(MueCheckError):
    """A model or an optimizer that cannot be audited as given."""


@dataclass(frozen=True, kw_only=True)
class SetUp:
    """A model with everything that trains it. An optimizer is any object with ``param_groups``, ``state``, ``step``."""

    model: nn.Module
    optimizers: tuple[Any, ...]
    schedulers: tuple[Any, ...] = ()
    loss: Loss | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise AuditError(f"the model is of type {type(self.model).__name__}, not a torch.nn.Module")
        if not self.optimizers:
            raise AuditError("there is no optimizer")
        for optimizer in self.optimizers:
            if not all(hasattr(optimizer, part) for part in ("param_groups", "state", "step")):
                raise AuditError(
                    f"the optimizer is {with_article(type(optimizer))} without param_groups, state and step: pass the "
                    "optimizers inside it as a list"
                )
        for scheduler in self.schedulers:
            if not hasattr(scheduler, "step"):
                raise AuditError(f"the scheduler is {with_article(type(scheduler))} without step")
        if self.loss is not None and not callable(self.loss):
            raise AuditError(f"the loss is {with_article(type(self.loss))}, not a callable that returns a loss")
        parameters = list(self.model.parameters())
        if not parameters:
            raise AuditError(f"the model ({type(self.model).__name__}) has no parameters")
        if any(p.is_meta for p in parameters):
            raise AuditError("the model has parameters on the meta device, which have no values: materialize it first")
        if not any(p.requires_grad for p in parameters):
            raise AuditError("every parameter of the model is frozen (requires_grad=False)")

    @classmethod
    def of(cls, model: nn.Module, optimizer: object, scheduler: object = None, loss: Loss | None = None) -> "SetUp":
        """Accept one optimizer and scheduler, or several of each."""
        return cls(model=model, optimizers=_as_tuple(optimizer), schedulers=_as_tuple(scheduler), loss=loss)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all optimizers, in order."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @property
    def stepped(self) -> list[Tensor]:
        """Every tensor that a step may read or write: those of the groups, and those of which they hold copies."""
        grouped = {id(p): p for group in self.groups for p in group["params"]}
        return [
            *grouped.values(),
            *(p for p in self.model.parameters() if id(p) in self.copies and id(p) not in grouped),
        ]

    @cached_property
    def copies(self) -> dict[int, Tensor]:
        """id(parameter) -> the copy of it in a group, for an optimizer that steps copies and writes them back.

        A copy has the parameter's shape and its values, to the precision of the parameter.
        """
        of_model, grouped = list(self.model.parameters()), [p for group in self.groups for p in group["params"]]
        known = {id(p) for p in of_model}
        free = list({id(p): p for p in grouped if id(p) not in known}.values())
        missing = [p for p in of_model if id(p) not in set(map(id, grouped))] if free else []
        out: dict[int, Tensor] = {}
        for p in missing:
            same = (i for i, c in enumerate(free) if _is_copy(c, p))
            found = next(same, None)
            if found is not None:
                out[id(p)] = free.pop(found)
        return out

    def clear_moments(self) -> None:
        """Clear the state of all optimizers, including those inside a wrapper that rebuilds its own ``state``."""
        for part in optimizer_parts(self.optimizers):
            if isinstance(getattr(part, "state", None), dict):
                part.state.clear()


def optimizer_parts(optimizers: Iterable[object]) -> Iterator[Any]:
    """The optimizers and those inside them."""
    pending, seen = list(optimizers), set[int]()
    while pending:
        part: Any = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, list | tuple):
            pending += part
        elif isinstance(part, dict):
            pending += part.values()
        elif hasattr(part, "step") and hasattr(part, "__dict__") and not isinstance(part, nn.Module):
            yield part
            pending += vars(part).values()


def _is_copy(copy: Tensor, p: Tensor) -> bool:
    precise = copy.is_floating_point() and torch.finfo(copy.dtype).bits >= 32
    return precise and copy.shape == p.shape and torch.equal(copy.detach().to(p), p.detach())


def _as_tuple(value: object) -> tuple[Any, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def load_factory(name: str) -> Callable[[], object]:
    """Import ``module:function`` or ``path/to/file.py:function``; AuditError if there is no such function."""
    module, colon, attribute = name.rpartition(":")
    if not (module and colon and attribute):
        raise AuditError(f"factory {name!r}: write module:function or path/to/file.py:function")
    try:
        with no_exit(), guarded_import():  # a script that parses its command line on import raises SystemExit
            value: Any = import_user_module(module)
    except Exception as error:
        raise AuditError(f"factory {name!r}: {module} cannot be imported: {describe_error(error)}") from error
    for part in attribute.split("."):
        value = getattr(value, part, None)
    if value is None:
        raise AuditError(f"factory {name!r}: {module} has no {attribute}")
    if not callable(value):
        raise AuditError(f"factory {name!r}: {attribute} is {with_article(type(value))}, not a function")
    factory: Callable[[], object] = value
    return factory


def call_factory(factory: Callable[[], object], name: str) -> SetUp:
    """Build the set-up; AuditError if the factory raises or does not return (model, optimizer, ...)."""
    try:
        with no_exit():
            parts = factory()
    except Exception as error:
        raise AuditError(f"factory {name!r} raised {describe_error(error)}") from error
    if not isinstance(parts, tuple | list) or not 2 <= len(parts) <= 4:
        what = (
            f"{len(parts)} values" if isinstance(parts, tuple | list) else f"an object of type {type(parts).__name__}"
        )
        raise AuditError(f"factory {name!r} returned {what}: must be {_RETURNS}")
    return SetUp.of(*parts)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch.compile, DistributedDataParallel, FSDP and the like."""
    *_, innermost = _layers(model)
    return innermost


def model_attribute(model: object, name: str) -> object:
    """An attribute of the model or of the model it wraps, or None (DistributedDataParallel forwards none)."""
    for layer in _layers(model) if isinstance(model, nn.Module) else (model,):
        value: object = getattr(layer, name, None)
        if value is not None:
            return value
    return None


def uncompiled() -> AbstractContextManager[None]:
    """Run compiled modules eagerly: compiling takes a minute and changes no result here."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()  # nothing is compiled, and importing the compiler takes seconds
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """The model and the modules it wraps: a wrapper has one child, under a known name, and no parameters."""
    while True:
        yield model
        children = dict(model.named_children())
        name = next(iter(children), "")
        known = name in WRAPPERS or name == "module"
        if len(children) != 1 or not known or any(True for _ in model.parameters(recurse=False)):
            return
        model = children[name]
