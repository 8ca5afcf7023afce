"""What the user gives: a model for each size, its optimizer, loss and batches, and what may go wrong with them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mue_check.errors import MueCheckError, with_article
from mue_check.global_state import guarded_import
from mue_check.rules import HyperParameters
from mue_check.study.comparison import NO_UNIT
from mue_check.user_code import describe_error, import_user_module, no_exit

NEEDED = {
    "model": "model(**size) -> nn.Module",
    "optimizer": "optimizer(model, lr=...)",
    "loss": "loss(model, batch) -> scalar",
    "batches": "batches(seed)",
}
FUNCTIONS = (*NEEDED, "scheduler", "step", "held_out", "plain")
PARTS = (*FUNCTIONS, "roles", "base", "unit")
"""What is taken from the user's object, or from its module."""
_KINDS: Mapping[str, tuple[Any, str]] = {
    "base": (int | float, "a size"),
    "roles": (Mapping, "a mapping of patterns to roles"),
    "unit": (str, "a text"),
}


class ModelError(MueCheckError):
    """A model, an optimizer, a loss or batches that cannot be used as given."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A candidate by name, with what ``hf:`` names need besides (``own_model.library``)."""

    name: str
    axis: str
    base: float
    rule: str
    values: HyperParameters | None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The user's functions.

    Optional: ``scheduler(optimizer)``, or ``scheduler(optimizer, steps)`` to learn the length of a run; ``step(model,
    optimizer, batch)``, a whole training step such as one with gradient accumulation; ``held_out(seed)``, batches on
    which a trained model is evaluated; ``plain(**size)``, the base model without any parameterization; ``roles``, see
    ``own_model.roles``; ``base``, the size at which every factor is 1; ``unit``, what the loss is in.
    """

    model: Callable[..., Any]
    optimizer: Callable[..., Any]
    loss: Callable[..., Any]
    batches: Callable[..., Any]
    scheduler: Callable[..., Any] | None = None
    step: Callable[..., Any] | None = None
    held_out: Callable[..., Any] | None = None
    plain: Callable[..., Any] | None = None
    roles: Mapping[str, str] | None = None
    base: float | None = None
    unit: str = NO_UNIT
    sizes: tuple[float, ...] = ()
    """Those of mup's table of models, otherwise empty."""
    place: str = ""
    attribute: str = ""
    """Where it was imported from: a module or a file, and the name of the object in it."""
    source: tuple[str, ...] = ()
    """What names its code, if that is not in files of the user."""
    recipe: "Recipe | None" = None
    """How another process finds it, if it was given by name."""

    @classmethod
    def of(cls, given: object, module: object = None) -> "Candidate":
        """Take the parts from an object or mapping, and those that it lacks from its module.

        A function is taken as ``model``, and a mapping from sizes to functions (mup's form) as a table of models.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, type) and not issubclass(given, nn.Module):
            with calling(f"{given.__name__}()"):
                given = given()
        parts: dict[str, Any] = {}
        table = isinstance(given, Mapping) and bool(given) and all(isinstance(key, int | float) for key in given)
        for name in PARTS:
            part = given.get(name) if isinstance(given, Mapping) else getattr(given, name, None)
            part = getattr(module, name, None) if part is None or table else part
            if part is not None:
                parts[name] = part
        if table:
            assert isinstance(given, Mapping)
            parts |= {"model": _Table(given), "sizes": tuple(sorted(given))}
        elif callable(given) and not hasattr(given, "model"):
            parts["model"] = given
        missing = [form for name, form in NEEDED.items() if name not in parts]
        if missing:
            raise ModelError(f"it has no {', no '.join(missing)}")
        for name, part in parts.items():
            if name in FUNCTIONS and not callable(part):
                raise ModelError(f"{name} is {with_article(type(part))}, not a function")
        for name, (kind, what) in _KINDS.items():
            if name in parts and not isinstance(parts[name], kind):
                raise ModelError(f"{name} is {with_article(type(parts[name]))}, not {what}")
        return cls(**parts)

    def build(self, axis: str, size: float, seed: int, *, plain: bool = False) -> nn.Module:
        """The model of one size, drawn from one seed."""
        make, name = (self.plain, "plain") if plain and self.plain else (self.model, "model")
        reseed(seed)
        with calling(f"{name}({axis}={size:g})"):
            model = make(**{axis: int(size) if size == int(size) else size})
        if not isinstance(model, nn.Module):
            raise ModelError(f"{name}({axis}={size:g}) returns {with_article(type(model))}, not a torch.nn.Module")
        parameters = list(model.parameters())
        if not any(p.requires_grad for p in parameters):
            raise ModelError(f"{name}({axis}={size:g}) has no parameter that is trained")
        if any(p.is_meta or is_lazy(p) for p in parameters):
            raise ModelError(f"{name}({axis}={size:g}) has parameters without values (lazy, or on the meta device)")
        return model

    def optimize(self, model: nn.Module, lr: float) -> Any:
        """The user's optimizer, or several in a list: anything with ``param_groups`` and ``step``."""
        with calling("optimizer(model, lr=...)"):
            given = self.optimizer(model, lr=lr)
        for optimizer in optimizers_of(given):
            if not hasattr(optimizer, "step") or not hasattr(optimizer, "param_groups"):
                raise ModelError(f"optimizer returns {with_article(type(optimizer))} without step and param_groups")
            if not all("lr" in group for group in optimizer.param_groups):
                raise ModelError(f"optimizer returns {with_article(type(optimizer))} with a group without lr")
            owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
            if not owned & {id(p) for p in model.parameters()}:
                raise ModelError("optimizer returns one that holds no parameter of the model")
        return given

    def schedule(self, optimizer: object, steps: int = 1000) -> Any:
        """The user's scheduler for a run of that length, or None."""
        if self.scheduler is None:
            return None
        with calling("scheduler(optimizer)"):
            takes_steps = "steps" in signature(self.scheduler).parameters
            scheduler = self.scheduler(optimizer, **{"steps": steps} if takes_steps else {})
        if not hasattr(scheduler, "step"):
            raise ModelError(f"scheduler returns {with_article(type(scheduler))} without step")
        return scheduler

    def stream(self, seed: int, *, held_out: bool = False) -> Iterator[object]:
        """The batches of a seed, or those held out."""
        make, name = (self.held_out, "held_out") if held_out and self.held_out else (self.batches, "batches")
        with calling(f"{name}({seed})"):
            found = make(seed)
            if not hasattr(found, "__iter__") or isinstance(found, Tensor | Mapping):
                raise ModelError(f"{name} returns {with_article(type(found))}: must be an iterable of batches")
            return iter(found)

    def batch(self, seed: int) -> object:
        """The first batch of a seed."""
        batches = self.stream(seed)
        with calling(f"batches({seed})"):
            for batch in batches:
                return batch
        raise ModelError(f"batches({seed}) is empty")

    def loss_of(self, model: nn.Module, batch: object, *, finite: bool = True) -> Tensor:
        """The loss of one batch; ModelError unless it is one number, and a ``finite`` one."""
        with calling("loss(model, batch)"):
            loss = self.loss(model, batch)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            what = f"tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ModelError(f"loss returns a {what}, not a scalar tensor")
        if finite and not bool(torch.isfinite(loss)):
            raise ModelError(f"the loss is {loss.item()}")
        return loss

    def update(self, model: nn.Module, optimizer: Any, scheduler: Any, batch: object, loss: Tensor | None) -> None:
        """One update and a step of the scheduler: by the user's own step, or else from the loss."""
        if self.step is not None:
            with calling("step(model, optimizer, batch)"):
                self.step(model, optimizer, batch)
        else:
            assert loss is not None
            with calling("the backward pass of the loss"):
                loss.backward()  # type: ignore[no-untyped-call]
            for each in optimizers_of(optimizer):
                with calling("optimizer.step()"):
                    each.step()
        advance(scheduler)


def optimizers_of(given: Any) -> Sequence[Any]:
    """The user's optimizers, of which there may be several in a list."""
    return given if isinstance(given, list | tuple) else (given,)


def advance(scheduler: Any) -> None:
    """One step of the scheduler, if there is one."""
    if scheduler is not None:
        with calling("scheduler.step()"):
            scheduler.step()


class _Table:
    """mup's ``{size: function without arguments}`` as one function."""

    def __init__(self, models: Mapping[Any, Any]) -> None:
        self.models = models

    def __call__(self, **size: float) -> object:
        (value,) = size.values()
        return self.models[value]()


def reseed(seed: int) -> None:
    """Seed torch. Its own function takes milliseconds to queue seeds for devices that are not in use."""
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    (torch.manual_seed if in_use else torch.default_generator.manual_seed)(seed)


@contextmanager
def calling(what: str) -> Iterator[None]:
    """Turn what the user's code raises into one line that says which call raised it."""
    try:
        with no_exit():
            yield
    except MueCheckError:
        raise
    except Exception as error:
        raise ModelError(f"{what} raises {describe_error(error)}") from error


def load(name: str) -> Candidate:
    """Import ``module``, ``module:object`` or the same of ``path/to/file.py``; ModelError says what is wrong."""
    place, _, attribute = name.rpartition(":") if ":" in name else (name, "", "")
    try:
        with no_exit(), guarded_import():
            module: Any = import_user_module(place)
    except Exception as error:
        raise ModelError(f"{name!r}: {place} cannot be imported: {describe_error(error)}") from error
    value = module
    for part in attribute.split(".") if attribute else ():
        value = getattr(value, part, None)
    if value is None:
        raise ModelError(f"{name!r}: {place} has no {attribute}")
    try:
        return replace(Candidate.of(value, module), place=place, attribute=attribute)
    except ModelError as error:
        raise ModelError(f"{name!r}: {error}") from None


def require_sizes(candidate: Candidate, axis: str, sizes: Sequence[float]) -> tuple[float, ...]:
    """The sizes to check; ModelError unless there are two or more that ascend, and the model takes the axis."""
    chosen = tuple(sizes) or candidate.sizes
    if len(chosen) < 2 or list(chosen) != sorted(set(chosen)) or min(chosen) <= 0:
        raise ModelError(f"sizes {', '.join(f'{s:g}' for s in chosen) or 'none'}: give two or more, ascending from 1")
    unknown = [s for s in chosen if candidate.sizes and s not in candidate.sizes]
    if unknown:
        raise ModelError(f"size {unknown[0]:g}: the table has {', '.join(f'{s:g}' for s in candidate.sizes)}")
    if not candidate.sizes:
        try:
            signature(candidate.model).bind(**{axis: chosen[0]})
        except TypeError as error:
            raise ModelError(f"model cannot be called as model({axis}=...): {error}") from None
        except ValueError:  # a function of C has no signature
            pass
    return chosen
