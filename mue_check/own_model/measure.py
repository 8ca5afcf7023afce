"""Coordinates of one model of one seed: the RMS of each module's output and each parameter, and how far they move.

The model is trained on one batch. The first forward pass of training is also the first measurement, so that a check
costs two forward passes, one backward pass and one update. Where some parameters only move once others have moved, such
as those behind a readout that starts at zero, there are more updates.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from mue_check.audit.roles import plain_name
from mue_check.audit.setup import uncompiled
from mue_check.own_model.candidate import Candidate, ModelError, advance, optimizers_of, reseed
from mue_check.plain import unregistered

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
    def module(self) -> str:
        """The module that it is of."""
        name = self.name
        if self.kind == "parameter":
            name = re.split(r"\.parametrizations\.|\.[^.]+$", name)[0] if "." in name else ""
        return name or WHOLE

    @property
    def group(self) -> "Key":
        """The same with ``*`` for the numbers of layers and experts."""
        return Key(self.kind, re.sub(r"(?<=\.)\d+(?=\.|$)", "*", self.name))


@dataclass(kw_only=True)
class Coordinates:
    """What one model shows, by key and in the order of a forward pass. NaN: not comparable between two passes.

    ``inputs`` is the last axis of a module's first floating-point input. ``idle`` parameters have no gradient but
    rounding (of seed 0 alone). ``rates`` are the learning rates of each parameter: as built, then after each step.
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
    if plain:
        for group in (group for optimizer in optimizers_of(given) for group in optimizer.param_groups):
            group["lr"] = lr
    run = _Run(candidate=candidate, model=model, given=given, batch=candidate.batch(seed), seed=seed)
    run.note_rates()
    run.scheduler = candidate.schedule(given)
    with uncompiled():
        return run.measured(updates, watched=not plain)


@dataclass(kw_only=True)
class _Run:
    candidate: Candidate
    model: nn.Module
    given: Any
    batch: object
    seed: int
    scheduler: Any = None
    found: Coordinates = field(default_factory=Coordinates)

    def __post_init__(self) -> None:
        named = self.model.named_parameters()
        self.names = {plain_name(name): p for name, p in named if p.numel() and p.is_floating_point()}

    def measured(self, updates: int | None, *, watched: bool) -> Coordinates:
        """``watched``: with outputs and parameters, else the losses and the rates alone."""
        start = {name: p.detach().clone() for name, p in self.names.items()} if watched else {}
        outputs = _Outputs(self.model) if watched else None
        self._update(outputs)
        if outputs is not None and outputs.outside:
            raise ModelError(
                f"the output depends on a trained tensor {list(outputs.outside[0].shape)} that is no parameter of the "
                "model: is a layer in a plain list?"
            )
        while self.found.updates < (updates or MOST_UPDATES):
            if updates is None and not self._still(start):
                break
            self._update(None)
        with torch.no_grad():
            self._forward(outputs)
        if outputs is not None:
            self._follow_schedule()
            self._collect(start, outputs)
        return self.found

    def note_rates(self) -> None:
        """The learning rates as they are now."""
        groups = [group for optimizer in optimizers_of(self.given) for group in optimizer.param_groups]
        rates = {id(p): float(group["lr"]) for group in groups for p in group["params"]}
        for name, p in self.names.items():
            if id(p) in rates:
                self.found.rates.setdefault(name, []).append(rates[id(p)])

    def _forward(self, outputs: "_Outputs | None") -> Tensor:
        reseed(self.seed + 1)  # the same dropout in every pass
        with outputs.recording() if outputs else nullcontext():
            loss = self.candidate.loss_of(self.model, self.batch)
        self.found.losses.append(loss.item())
        return loss

    def _update(self, outputs: "_Outputs | None") -> None:
        own = self.candidate.step is not None
        with torch.set_grad_enabled(not own):
            loss = self._forward(outputs) if not own or self.found.updates == 0 else None
        if own:
            reseed(self.seed + 1)
        self.candidate.update(self.model, self.given, self.scheduler, self.batch, loss)
        if not self.found.updates and self.seed == 0:
            self._note_idle()
        self.model.zero_grad()
        self.found.updates += 1
        self.note_rates()

    def _note_idle(self) -> None:
        named = [(name, p.grad) for name, p in self.names.items() if p.grad is not None]
        sizes = _numbers([rms(grad) for _, grad in named])
        largest = max(sizes, default=0.0)
        self.found.idle = {n for (n, _), size in zip(named, sizes, strict=True) if 0 < size < _NO_GRADIENT * largest}

    def _still(self, start: Mapping[str, Tensor]) -> bool:
        """Whether a group of parameters that are trained has not moved at all."""
        moved: dict[str, list[Tensor]] = {}
        for name, p in self.names.items():
            if p.requires_grad:
                moved.setdefault(Key("parameter", name).group.name, []).append(rms(p.detach() - start[name]))
        return any(max(_numbers(values)) == 0 for values in moved.values())

    def _follow_schedule(self) -> None:
        """Look at the rates of later steps, without training."""
        for _ in range(_LOOKS if self.scheduler is not None else 0):
            advance(self.scheduler)
            self.note_rates()

    @torch.no_grad()
    def _collect(self, start: Mapping[str, Tensor], outputs: "_Outputs") -> None:
        found, unknown = self.found, torch.tensor(torch.nan)
        values = {key: (value, outputs.change.get(key, unknown)) for key, value in outputs.rms.items()}
        found.shapes = outputs.shapes
        for name, p in self.names.items():
            key = Key("parameter", name)
            values[key] = rms(start[name]), rms(start[name].sub_(p))
            found.shapes[key] = tuple(p.shape)
        numbers = iter(_numbers([number for pair in values.values() for number in pair]))
        for key, rms_of, change in zip(values, numbers, numbers, strict=True):
            found.rms[key], found.change[key] = rms_of, change
        found.inputs = outputs.inputs
        for name, module in outputs.modules.items():
            found.kinds[name] = getattr(module, "original_name", type(module).__name__)  # that of a traced module


class _Outputs:
    """What each module returns in its first call of the first recorded pass, and how far that is off in the second."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = {plain_name(name) or WHOLE: module for name, module in model.named_modules()}
        # what a parametrization such as weight norm returns is no activation
        self.seen = {name: module for name, module in self.modules.items() if "parametrizations" not in name.split(".")}
        self.hooks = [self._hook(name, module) for name, module in self.seen.items()]
        self.called: set[str] = set()
        """The modules that the pass has reached."""
        self.kept: dict[Key, Tensor] = {}
        self.rms: dict[Key, Tensor] = {}
        self.change: dict[Key, Tensor] = {}
        self.shapes: dict[Key, tuple[int, ...]] = {}
        self.inputs: dict[str, int] = {}
        self.again = False
        self.outside: list[nn.Parameter] = []
        """Parameters on which the model's output depends, and which are not the model's."""

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record one pass."""
        self.called.clear()
        handles = [
            module.register_forward_hook(hook, with_kwargs=True)
            for module, hook in zip(self.seen.values(), self.hooks, strict=True)
        ]
        try:
            yield
        finally:
            self.again = True
            for handle in handles:
                handle.remove()

    def _hook(self, name: str, module: nn.Module) -> Callable[..., None]:
        path = name.split(".")
        # the outermost numbered modules: not the experts within
        is_block = path[-1].isdigit() and sum(map(str.isdigit, path)) == 1 and any(True for _ in module.children())

        @torch.no_grad()
        def hook(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
            y = _first_tensor(output)
            if y is None or y.numel() < 2 or name in self.called:
                return
            self.called.add(name)
            if name == WHOLE:
                self.outside += [p for p in unregistered(self.modules[WHOLE], y) if isinstance(p, nn.Parameter)]
            x = _first_tensor((*args, *kwargs.values()))
            if x is not None and x.ndim:
                self.inputs.setdefault(name, x.shape[-1])
            self._record(Key("output", name), y)
            if is_block and x is not None and x.shape == y.shape:
                self._record(Key("added", name), y - x)

        return hook

    def _record(self, key: Key, value: Tensor) -> None:
        value = value.detach()
        if not self.again:
            self.shapes[key] = tuple(value.shape)
            self.kept[key] = value.clone()  # the model may change it in place
            self.rms[key] = rms(value)
        elif key in self.kept:
            earlier = self.kept.pop(key)
            if earlier.shape == value.shape:
                self.change[key] = rms(earlier.sub_(value))


def rms(tensor: Tensor) -> Tensor:
    """Root mean square, of the whole tensor where it is distributed; NaN if it has no elements."""
    numbers = tensor.numel()
    if tensor.is_sparse:  # the gradient of an embedding
        tensor = tensor.coalesce().values()
    norm: Any = torch.linalg.vector_norm(tensor, dtype=torch.float32 if tensor.element_size() < 4 else None)
    if hasattr(norm, "full_tensor"):
        norm = norm.full_tensor()
    result: Tensor = norm / numbers**0.5 if numbers else torch.tensor(torch.nan)
    return result


def _numbers(values: list[Tensor]) -> list[float]:
    numbers: list[float] = torch.stack([v.detach().to("cpu", torch.float64) for v in values]).tolist() if values else []
    return numbers


def _first_tensor(value: object) -> Tensor | None:
    """The first tensor of floating-point numbers in a module's inputs or outputs."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    if isinstance(value, Mapping) or is_dataclass(value):
        value = tuple((value if isinstance(value, Mapping) else vars(value)).values())
    if isinstance(value, tuple | list):
        return next((t for t in map(_first_tensor, value) if t is not None and t.numel() > 1), None)
    return None
