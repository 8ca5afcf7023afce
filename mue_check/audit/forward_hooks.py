"""What is seen of a model in one forward pass, module by module: norms, branches, readout, weights of experts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check.audit.assign import Assignment, width_of
from mue_check.audit.fitting import fit
from mue_check.audit.mixtures import Mixture
from mue_check.rules import Role
from mue_check.rules.roles import DOWN, EMBEDDINGS

_ENDS = DOWN | {Role.ATTENTION_OUT}
_FEW = 16
"""Outputs of a matrix that are computed again."""


@dataclass(frozen=True)
class Part:
    """What a module gave on its way to the residual stream, and what it was multiplied by inside that module.

    ``stacked``: it is the sum over all experts of a stack.
    """

    role: Role
    made: Tensor
    inside: float = 1.0
    stacked: bool = False

    @property
    def value(self) -> Tensor:
        """What its matrix gave."""
        return self.made if self.inside == 1 else self.made / self.inside


@dataclass(kw_only=True)
class Segment:
    """What was seen between two norms of the residual stream. ``normed`` is what the first of them gave."""

    normed: Tensor | None = None
    parts: list[Part] = field(default_factory=list)
    mixtures: list[Mixture] = field(default_factory=list)


@dataclass(frozen=True)
class Readout:
    """Input and output of the unembedding, and what its matrix and its bias are multiplied by inside its module."""

    given: Tensor
    made: Tensor
    inside: float
    bias: float | None


@dataclass(kw_only=True)
class Seen:
    """Events of one forward pass. ``inputs`` are the norms' inputs; ``normed`` roles end in a norm of their own."""

    inputs: list[Tensor] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=lambda: [Segment()])
    normed: set[Role] = field(default_factory=set)
    readout: Readout | None = None
    sums: list[Tensor] = field(default_factory=list)

    def at_norm(self, given: Tensor, made: Tensor) -> None:
        """A norm after a branch is that branch's end; any other begins a segment, unless two read the same stream."""
        parts = self.segments[-1].parts
        for i, part in enumerate(parts):
            if part.role in _ENDS and part.made.shape == given.shape and torch.equal(part.made, given):
                parts[i] = replace(part, made=made, inside=1.0)
                self.normed.add(part.role)
                return
        if self.inputs and self.inputs[-1].shape == given.shape and torch.equal(self.inputs[-1], given):
            self.segments[-1].normed = made
            return
        self.inputs.append(given)
        self.segments.append(Segment(normed=made))


@contextmanager
def watching(model: nn.Module, assignments: Mapping[str, Assignment], mixtures: Sequence[Mixture]) -> Iterator[Seen]:
    """What forward passes show while the context lasts."""
    seen, handles, width = Seen(), [], width_of(assignments)
    attention = {
        _up(a.name.removesuffix(".weight")) + "." for a in assignments.values() if a.role is Role.ATTENTION_QKV
    }

    def listen(module: nn.Module, event: Callable[[Tensor, Tensor], None]) -> None:
        def hook(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
            given, made = _first((*args, *kwargs.values())), _tensor(output)
            if given is not None and made is not None:
                # clones, for a model may go on in place
                event(given.detach().clone(), made.detach().clone())

        handles.append(module.register_forward_hook(hook, with_kwargs=True))

    try:
        for mixture in mixtures:
            for path in mixture.watched:
                hook = _mark(seen, mixture)
                handles.append(model.get_submodule(path).register_forward_pre_hook(hook))
        for a in assignments.values():
            path = _up(a.name)
            owner = model.get_submodule(path)
            if a.role is Role.NORM_GAIN and a.shape == (width,) and not any(path.startswith(p) for p in attention):
                listen(owner, seen.at_norm)
            elif a.role in EMBEDDINGS:
                listen(owner, _on_part(seen, owner, a))
            elif a.role in _ENDS and (a.role is not Role.EXPERT_DOWN or a.experts):
                listen(owner, _on_part(seen, owner, a))
                if a.role is Role.EXPERT_DOWN and a.experts:
                    handles.append(owner.register_forward_pre_hook(_on_experts(seen, a.experts), with_kwargs=True))
            if Role.UNEMBEDDING in (a.role, *a.also):
                readout = _readout_module(model, a)
                if readout is not None:
                    listen(readout, _on_readout(seen, readout))
        for path, module in model.named_modules():
            # norms without a gain have no parameter to be told by
            plain = "norm" in type(module).__name__.lower() and not any(True for _ in module.parameters())
            if plain and not any(path.startswith(p) for p in attention):
                listen(module, seen.at_norm)
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _mark(seen: Seen, mixture: Mixture) -> Callable[[nn.Module, object], None]:
    def hook(module: nn.Module, args: object) -> None:
        if mixture not in seen.segments[-1].mixtures:
            seen.segments[-1].mixtures.append(mixture)

    return hook


def _on_part(seen: Seen, owner: nn.Module, a: Assignment) -> Callable[[Tensor, Tensor], None]:
    def event(given: Tensor, made: Tensor) -> None:
        assert a.role is not None
        if not made.is_floating_point():
            return
        stacked = a.experts is not None
        inside = 1.0 if stacked else _inside(owner, a.axes, a.name.rpartition(".")[2], given, made)[0]
        seen.segments[-1].parts.append(Part(a.role, made, inside, stacked))

    return event


def _on_experts(seen: Seen, total: int) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.is_floating_point() and value.ndim == 2:
                rows = value.detach().double()
                if rows.shape[1] <= total and bool((rows >= 0).all()):
                    seen.sums.append(rows.sum(1))

    return hook


def _on_readout(seen: Seen, owner: nn.Module) -> Callable[[Tensor, Tensor], None]:
    def event(given: Tensor, made: Tensor) -> None:
        inside, *bias = _inside(owner, "out_in", "weight", given, made)
        seen.readout = Readout(given, made, inside, bias[0] if bias else None)

    return event


def _inside(owner: nn.Module, axes: str, leaf: str, given: Tensor, made: Tensor) -> list[float]:
    """What a module multiplies by beside its matrix, and its bias by where it has one; [1.0] where it cannot be told.

    A few outputs are computed again from its input.
    """
    weight, bias = getattr(owner, leaf, None), getattr(owner, "bias", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        return [1.0]
    if not given.is_floating_point():
        again = F.embedding(given.reshape(-1)[:_FEW], weight).double()
        goal = made.reshape(-1, made.shape[-1])[:_FEW]
        found = fit(goal, [again]) if goal.shape == again.shape else None
        return [1.0] if found is None else [_plain(found.numbers[0])]
    matrix = weight.T if axes == "in_out" else weight
    if given.shape[-1] != matrix.shape[1] or made.shape[-1] != matrix.shape[0] or given.shape[:-1] != made.shape[:-1]:
        return [1.0]
    parts = [given.double() @ matrix[:_FEW].double().T]
    if isinstance(bias, Tensor) and bool(bias[:_FEW].any()):
        parts.append(bias[:_FEW].double())
    found = fit(made[..., :_FEW], parts)
    return [1.0] if found is None else [_plain(number) for number in found.numbers]


def _plain(number: float) -> float:
    """Within rounding of 1 there is no multiplier."""
    return 1.0 if abs(number - 1) < 1e-3 else number


def _readout_module(model: nn.Module, a: Assignment) -> nn.Module | None:
    """The module that holds the unembedding, by whichever of its names is not the lookup's."""
    weight = model.get_parameter(a.name)
    for module in model.modules():
        if not isinstance(module, nn.Embedding) and getattr(module, "weight", None) is weight:
            return module
    return None


def _first(values: tuple[object, ...]) -> Tensor | None:
    """The tensor that a module was given: numbers, or ids where there are no numbers."""
    tensors = [v for v in values if isinstance(v, Tensor)]
    return next((t for t in tensors if t.is_floating_point()), tensors[0] if tensors else None)


def _tensor(output: object) -> Tensor | None:
    value = output[0] if isinstance(output, tuple | list) and output else output
    return value if isinstance(value, Tensor) else None


def _up(path: str) -> str:
    return path.rpartition(".")[0]
