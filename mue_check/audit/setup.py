"""What the user's factory gives: a model, its optimizers and schedulers, and a loss; one line where it does not."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mue_check.errors import MueCheckError

Loss = Callable[[], Tensor]
"""One batch through the model: a scalar to go backward from."""


class AuditError(MueCheckError):
    """A model or an optimizer that cannot be audited as it was given."""


@dataclass(frozen=True, kw_only=True)
class SetUp:
    """A model with what trains it. Optimizers are anything with ``param_groups``, ``state`` and ``step``."""

    model: nn.Module
    optimizers: tuple[Any, ...]
    schedulers: tuple[Any, ...] = ()
    loss: Loss | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise AuditError(f"the model is a {type(self.model).__name__}, not a torch.nn.Module")
        if not self.optimizers:
            raise AuditError("there is no optimizer")
        for optimizer in self.optimizers:
            if not all(hasattr(optimizer, part) for part in ("param_groups", "state", "step")):
                raise AuditError(
                    f"the optimizer is a {type(optimizer).__name__} without param_groups, state and step: give the "
                    "optimizers that it holds, as a list"
                )
        for scheduler in self.schedulers:
            if not hasattr(scheduler, "step"):
                raise AuditError(f"the scheduler is a {type(scheduler).__name__} without step")
        if self.loss is not None and not callable(self.loss):
            raise AuditError(f"the loss is a {type(self.loss).__name__}, not a callable that returns a loss")
        parameters = list(self.model.parameters())
        if not parameters:
            raise AuditError(f"the model ({type(self.model).__name__}) has no parameters")
        if any(p.is_meta for p in parameters):
            raise AuditError("the model has parameters on the meta device, which have no values: materialize it first")
        if not any(p.requires_grad for p in parameters):
            raise AuditError("every parameter of the model is frozen (requires_grad=False): nothing would be trained")

    @classmethod
    def of(cls, model: nn.Module, optimizer: object, scheduler: object = None, loss: Loss | None = None) -> "SetUp":
        """One optimizer or several, and the same for schedulers."""
        return cls(model=model, optimizers=_several(optimizer), schedulers=_several(scheduler), loss=loss)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all optimizers, in order."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def forget(self) -> None:
        """Clear the moments of all optimizers, also of those that a wrapper holds and whose states it joins anew."""
        waiting, seen = list(self.optimizers), set[int]()
        while waiting:
            part = waiting.pop()
            if id(part) in seen:
                continue
            seen.add(id(part))
            if isinstance(part, list | tuple):
                waiting += part
            elif isinstance(part, dict):
                waiting += part.values()
            elif hasattr(part, "step") and hasattr(part, "__dict__") and not isinstance(part, nn.Module):
                if isinstance(getattr(part, "state", None), dict):
                    part.state.clear()
                waiting += vars(part).values()


def _several(value: object) -> tuple[Any, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def load_factory(name: str) -> Callable[[], object]:
    """The callable that ``module:function`` or ``path/to/file.py:function`` names; AuditError says what is missing."""
    module, colon, attribute = name.rpartition(":")
    if not (module and colon and attribute):
        raise AuditError(f"factory {name!r}: write module:function or path/to/file.py:function")
    try:
        found: Any = _import(module)
    except (Exception, SystemExit) as error:
        # a script that reads its own command line as it is imported leaves with SystemExit
        raise AuditError(f"factory {name!r}: {module} cannot be imported: {said(error)}") from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise AuditError(f"factory {name!r}: {module} has no {attribute}")
    if not callable(found):
        raise AuditError(f"factory {name!r}: {attribute} is a {type(found).__name__}, not a function")
    made: Callable[[], object] = found
    return made


def _import(module: str) -> object:
    if not module.endswith(".py"):
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(module)
    path = Path(module)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no such file {module}")
    made = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, made)  # dataclasses and pickles look their module up
    # a script finds its neighbours, also when they are imported late
    sys.path.insert(0, str(path.resolve().parent))
    spec.loader.exec_module(made)
    return made


def call_factory(factory: Callable[[], object], name: str) -> SetUp:
    """The factory's set-up; AuditError when it raises or returns something else than (model, optimizer, ...)."""
    try:
        made = factory()
    except (Exception, SystemExit) as error:
        raise AuditError(f"factory {name!r} raised {said(error)}") from error
    if not isinstance(made, tuple | list) or not 2 <= len(made) <= 4:
        shape = f"{len(made)} things" if isinstance(made, tuple | list) else f"a {type(made).__name__}"
        raise AuditError(
            f"factory {name!r} returned {shape}: must be (model, optimizer), (model, optimizer, scheduler) "
            "or (model, optimizer, scheduler, loss)"
        )
    return SetUp.of(*made)


def said(error: BaseException) -> str:
    """An exception in one line: its type and the first line of its message."""
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__
