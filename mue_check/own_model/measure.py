"""Coordinates of one model of one seed: the RMS of each module's output and each parameter, and how far they move.

The model is trained on one batch. The first forward pass of training is also the first measurement, so that a check
costs two forward passes, one backward pass and one update. Where some parameters only move once others have moved, such
as those behind a readout that starts at zero, there are more updates.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from mue_check.audit.roles import plain_name
from mue_check.audit.setup import uncompiled
from mue_check.own_model.candidate import Candidate, calling, reseed

Kind = Literal["parameter", "output", "added"]
WHOLE = "(model)"
"""The name of the whole model, which has none."""
MOST_UPDATES = 3
_NO_GRADIENT = 1e-5
"""A gradient this much smaller than the model's largest is rounding: keys' biases have none."""
_LOOKS = 3
"""Steps of the scheduler at which the rates of parameter groups are compared."""


class Key(NamedTuple):
    """A coordinate. "added" is what a block adds to its input."""

    kind: Kind
    name: str

    @property
    def group(self) -> "Key":
        """The same with ``*`` for the numbers of layers and experts."""
        return Key(self.kind, re.sub(r"(?<=\.)\d+(?=\.|$)", "*", self.name))


@dataclass(kw_only=True)
class Coordinates:
    """What one model shows, by key and in the order of a forward pass. NaN: not comparable between two passes.

    ``inputs`` is the last axis of a module's first floating-point input. ``idle`` parameters have no gradient but
    rounding. ``rates`` are the learning rates of each parameter: as built, then after each step.
    """

    rms: dict[Key, float] = field(default_factory=dict)
    change: dict[Key, float] = field(default_factory=dict)
    shapes: dict[Key, tuple[int, ...]] = field(default_factory=dict)
    inputs: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    """Classes of modules."""
    idle: set[str] = field(default_factory=set)
    rates: dict[str, list[float]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    updates: int = 0


def measure(
    candidate: Candidate,
    axis: str,
    size: float,
    seed: int,
    lr: float,
    updates: int | None = None,
    *,
    plain: bool = False,
) -> Coordinates:
    """Train the model of one size for ``updates`` steps on one batch; None: until every matrix that can move has moved.

    ``plain``: the plain model, and one learning rate for all parameters. Works with DTensor parameters: their RMS is
    that of the whole tensor. Outputs are those of this process.
    """
    model = candidate.build(axis, size, seed, plain=plain)
    given = candidate.optimize(model, lr)
    optimizers = list(given) if isinstance(given, list | tuple) else [given]
    if plain:
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = lr
    run = _Run(
        candidate=candidate, model=model, given=given, optimizers=optimizers, batch=candidate.batch(seed), seed=seed
    )
    run.note_rates()
    run.scheduler = candidate.schedule(given)
    with uncompiled():
        return run.measured(updates)


@dataclass(kw_only=True)
class _Run:
    candidate: Candidate
    model: nn.Module
    given: Any
    optimizers: list[Any]
    batch: object
    seed: int
    scheduler: Any = None
    found: Coordinates = field(default_factory=Coordinates)

    def measured(self, updates: int | None) -> Coordinates:
        names = {plain_name(name): p for name, p in self.model.named_parameters()}
        start = {name: p.detach().clone() for name, p in names.items()}
        first = _Outputs(self.model)
        self._update(first)
        while self.found.updates < (updates or MOST_UPDATES):
            if updates is None and not _still(names, start):
                break
            self._update(None)
        later = _Outputs(self.model, first)
        with torch.no_grad():
            self._forward(later)
        self._follow_schedule()
        self._collect(names, start, first, later)
        return self.found

    def note_rates(self) -> None:
        """The learning rates as they are now."""
        rates = {id(p): float(g["lr"]) for o in self.optimizers for g in o.param_groups for p in g["params"]}
        for name, p in self.model.named_parameters():
            if id(p) in rates:
                self.found.rates.setdefault(plain_name(name), []).append(rates[id(p)])

    def _forward(self, outputs: "_Outputs | None") -> Tensor:
        reseed(self.seed + 1)  # the same dropout in every pass
        with outputs.recording() if outputs else nullcontext():
            loss = self.candidate.loss_of(self.model, self.batch)
        self.found.losses.append(loss.item())
        return loss

    def _update(self, outputs: "_Outputs | None") -> None:
        if self.candidate.step is None:
            loss = self._forward(outputs)
            with calling("the backward pass of the loss"):
                loss.backward()  # type: ignore[no-untyped-call]
            self._note_idle()
            for optimizer in self.optimizers:
                with calling("optimizer.step()"):
                    optimizer.step()
            if self.scheduler is not None:
                with calling("scheduler.step()"):
                    self.scheduler.step()
            self.model.zero_grad()
        else:
            if outputs is not None:
                with torch.no_grad():
                    self._forward(outputs)
            reseed(self.seed + 1)
            with calling("step(model, optimizer, batch)"):
                self.candidate.step(self.model, self.given, self.batch)
        self.found.updates += 1
        self.note_rates()

    def _note_idle(self) -> None:
        if self.found.updates:
            return
        named = [(plain_name(n), p.grad) for n, p in self.model.named_parameters() if p.grad is not None]
        sizes = _numbers([rms(grad) for _, grad in named])
        largest = max(sizes, default=0.0)
        self.found.idle = {n for (n, _), size in zip(named, sizes, strict=True) if 0 < size < _NO_GRADIENT * largest}

    def _follow_schedule(self) -> None:
        """Look at the rates of later steps, without training."""
        if self.scheduler is not None and self.candidate.step is None:
            for _ in range(_LOOKS):
                with calling("scheduler.step()"):
                    self.scheduler.step()
                self.note_rates()

    @torch.no_grad()
    def _collect(
        self, names: Mapping[str, Tensor], start: Mapping[str, Tensor], first: "_Outputs", later: "_Outputs"
    ) -> None:
        found, values = self.found, dict[Key, tuple[Tensor, Tensor]]()
        for key, value in first.rms.items():
            values[key] = value, later.change.get(key, torch.tensor(torch.nan))
            found.shapes[key] = first.shapes[key]
        for name, p in names.items():
            key = Key("parameter", name)
            values[key] = rms(start[name]), rms(p.detach() - start[name])
            found.shapes[key] = tuple(p.shape)
        found.rms = dict(zip(values, _numbers([r for r, _ in values.values()]), strict=True))
        found.change = dict(zip(values, _numbers([c for _, c in values.values()]), strict=True))
        found.inputs = first.inputs
        found.kinds = {plain_name(n): type(m).__name__ for n, m in self.model.named_modules()}


class _Outputs:
    """What each module returns in its first call of a forward pass."""

    def __init__(self, model: nn.Module, before: "_Outputs | None" = None) -> None:
        self.model, self.before = model, before
        self.kept: dict[Key, Tensor] = {}
        self.rms: dict[Key, Tensor] = {}
        self.change: dict[Key, Tensor] = {}
        self.shapes: dict[Key, tuple[int, ...]] = {}
        self.inputs: dict[str, int] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record while the context lasts."""
        handles = [
            module.register_forward_hook(self._hook(plain_name(name) or WHOLE, module), with_kwargs=True)
            for name, module in self.model.named_modules()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str, module: nn.Module) -> Callable[..., None]:
        path = name.split(".")
        # the outermost numbered modules: not the experts within
        is_block = path[-1].isdigit() and sum(map(str.isdigit, path)) == 1 and any(True for _ in module.children())

        @torch.no_grad()
        def hook(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
            key, y = Key("output", name), _first_tensor(output)
            if y is None or y.numel() < 2 or key in self.shapes:
                return
            x = _first_tensor((*args, *kwargs.values()))
            if x is not None and x.ndim:
                self.inputs[name] = x.shape[-1]
            self._record(key, y)
            if is_block and x is not None and x.shape == y.shape:
                self._record(Key("added", name), y - x)

        return hook

    def _record(self, key: Key, value: Tensor) -> None:
        value = value.detach()
        self.shapes[key] = tuple(value.shape)
        if self.before is None:
            self.kept[key] = value.clone()  # the model may change it in place
            self.rms[key] = rms(value)
        elif key in self.before.kept:
            earlier = self.before.kept.pop(key)
            if earlier.shape == value.shape:
                self.change[key] = rms(value - earlier)


def rms(tensor: Tensor) -> Tensor:
    """Root mean square, of the whole tensor where it is distributed; NaN if it has no elements."""
    norm: Any = torch.linalg.vector_norm(tensor, dtype=torch.float32 if tensor.element_size() < 4 else None)
    if hasattr(norm, "full_tensor"):
        norm = norm.full_tensor()
    result: Tensor = norm / tensor.numel() ** 0.5 if tensor.numel() else torch.tensor(torch.nan)
    return result


def _numbers(values: list[Tensor]) -> list[float]:
    numbers: list[float] = torch.stack([v.detach().double().cpu() for v in values]).tolist() if values else []
    return numbers


def _still(names: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> bool:
    """Whether a group of parameters that are trained has not moved at all."""
    moved: dict[str, list[Tensor]] = {}
    for name, p in names.items():
        if p.requires_grad:
            moved.setdefault(Key("parameter", name).group.name, []).append(rms(p.detach() - start[name]))
    return any(max(_numbers(values)) == 0 for values in moved.values())


def _first_tensor(value: object) -> Tensor | None:
    """The first tensor of floating-point numbers in a module's inputs or outputs."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return next((t for t in map(_first_tensor, value) if t is not None and t.numel() > 1), None)
    return None
