"""How a user's router behaves at one size, found by calling it: its tensors, its return, and what makes it slow."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from mue_check.errors import ClaimError
from mue_check.global_state import Changes, preserved_globals, preserved_torch
from mue_check.models.user_router.call import Call, Reading, Tensors, try_both_ways
from mue_check.routing.adapter import Layout, Size, learn_layout
from mue_check.routing.canonical import Routing
from mue_check.routing.claim import Field
from mue_check.routing.factory import Candidate, Shape
from mue_check.user_code import describe_error, no_exit

Vector = float | tuple[float, ...]
_READ: tuple[Field, ...] = ("weights", "indices", "combine", "mask", "logits")
_TOKENS = (50, 54)
"""Numbers of tokens to try: the first that is not the number of experts, so that no shape is ambiguous."""
_EMPTY = (torch.empty, torch.empty_like, torch.Tensor.new_empty)


@dataclass(frozen=True, kw_only=True)
class RouterProfile:
    """How a router behaves at one size.

    ``matrices``: their shapes by name; ``vectors``: their shapes and initial values; ``untrained``: buffers and frozen
    parameters as one seed makes them, of which ``moving`` change in a training step. ``gate``: its only matrix, if that
    maps tokens to experts. ``trains``: it can be in training mode. ``slow``: why vmap refuses it; ``unbatched``:
    operations that vmap itself repeats for each run. ``loose``: undeclared scalars with a gradient. ``mutates``: it
    changes its input.
    """

    layout: Layout
    reading: Reading
    matrices: Mapping[str, tuple[int, ...]]
    vectors: Mapping[str, tuple[tuple[int, ...], Vector]]
    untrained: Mapping[str, Tensor]
    moving: tuple[str, ...]
    gate: str | None
    trains: bool
    slow: str
    unbatched: tuple[str, ...]
    loose: tuple[str, ...]
    mutates: bool = False

    def call(self, *, training: bool) -> Call:
        """The call of a training step, or of an evaluation."""
        return _call(self.layout, self.moving, training=training)


class _Unset(TorchFunctionMode):
    """Fills tensors of torch.empty with NaN, since memory that happens to be zero looks like a choice."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in _EMPTY and made.is_floating_point():
            made.fill_(math.nan)
        return made


def build(candidate: Candidate, shape: Shape, seed: int) -> nn.Module:
    """The factory's module, equal for equal seeds; memory that its constructor leaves unset is NaN. ClaimError."""
    with preserved_torch(), warnings.catch_warnings(), _Unset():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        try:
            with no_exit():
                return candidate.build(shape)
        except Exception as error:  # a user's constructor may raise anything
            raise ClaimError(f"the factory raises {describe_error(error, code=True)}") from None


def untrained_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Buffers and frozen parameters, by name."""
    frozen = {name: p.detach().clone() for name, p in module.named_parameters() if not is_trained(p)}
    return frozen | {name: value.detach().clone() for name, value in module.named_buffers()}


def require_unchanged(changes: Changes) -> None:
    """ClaimError if calling the router changed functions or settings of torch."""
    if changed := [*changes.functions, *changes.torch]:
        raise ClaimError(f"calling it changes {', '.join(changed)}, and with that what other models do")


def examine(candidate: Candidate, shape: Shape, layout: Layout | None = None) -> RouterProfile:
    """Try the router at a size; the layout is learned there if it is not known. ClaimError where it cannot serve."""
    try:
        with preserved_globals() as changes:
            warnings.simplefilter("ignore")
            profile = _examine(candidate, shape, layout)
        require_unchanged(changes)
        return profile
    except Exception as error:
        # reading the return can fail in any way: it may hold tensors without values, or of another class
        reason = (
            str(error)
            if isinstance(error, ClaimError)
            else f"what it returns raises {describe_error(error, code=True)}"
        )
        where = f"d_model={shape.d}, n_experts={shape.experts}, top_k={shape.activated}"
        raise ClaimError(f"at {where}: {reason}") from None


def _examine(candidate: Candidate, shape: Shape, layout: Layout | None) -> RouterProfile:
    module, other = build(candidate, shape, 0), dict(build(candidate, shape, 1).named_parameters())
    trained = {name: p for name, p in module.named_parameters() if is_trained(p)}
    matrices = {name: tuple(p.shape) for name, p in trained.items() if _is_matrix(p)}
    vectors = {name: (tuple(p.shape), start_of(p, other[name])) for name, p in trained.items() if not _is_matrix(p)}
    untrained = untrained_tensors(module)
    for name, value in untrained.items():
        if value.isnan().any():
            raise ClaimError(f"its constructor leaves {name} without a value")

    size = Size(tokens=next(t for t in _TOKENS if t != shape.experts), experts=shape.experts, activated=shape.activated)
    tensors, x_RMD = drawn_tensors(module, untrained, shape.d, size.tokens)
    first = {name: value[0] for name, value in tensors.items()}
    given = x_RMD[0].clone()
    trained_once, noisy, moving = _try(module.train(), first, given)
    mutates = not torch.equal(given, x_RMD[0])
    evaluated, always_noisy, moved = _try(module.eval(), first, x_RMD[0].clone())
    if always_noisy:
        raise ClaimError("it draws random numbers in eval mode too, so that no run could be repeated")
    if noisy:
        trained_once, moving = evaluated, moved
    layout = layout or learn_layout(trained_once, size, candidate.claim)
    if layout.by_expert and candidate.claim.kind != "expert_choice":
        raise ClaimError("it returns tokens by expert, [E, C]: its claim must say kind = 'expert_choice'")
    # a loss may be returned in training alone
    evaluation = replace(layout, parts={name: path for name, path in layout.parts.items() if name != "aux"})
    seen = [evaluation.read(evaluated, size), read := layout.read(trained_once, size)]
    slots = all(_has_slots(routing, layout) for routing in seen)
    if "aux" in layout.parts and read.aux["aux"].numel() != 1:
        raise ClaimError(f"aux is {list(read.aux['aux'].shape)}, not one number")
    module.train(not noisy)
    slow, unbatched = try_both_ways(_call(layout, moving, training=True), module, tensors, x_RMD)
    gates = [name for name, form in matrices.items() if form in ((shape.experts, shape.d), (shape.d, shape.experts))]
    return RouterProfile(
        layout=layout,
        reading=Reading(by_expert=layout.by_expert, slots=slots and candidate.claim.kind != "capacity"),
        matrices=matrices,
        vectors=vectors,
        untrained=untrained,
        moving=moving,
        gate=gates[0] if len(matrices) == len(gates) == 1 else None,
        trains=not noisy,
        slow=slow,
        unbatched=unbatched,
        loose=tuple(n for n, p in read.aux.items() if n != "aux" and p.numel() == 1 and p.requires_grad),
        mutates=mutates,
    )


def _call(layout: Layout, moving: tuple[str, ...], *, training: bool) -> Call:
    read = (*_READ, "aux") if training else _READ
    parts = {name: path for name, path in layout.parts.items() if name in read}
    return Call(parts=parts, moving=moving if training else ())


def is_trained(p: Tensor) -> bool:
    """Whether training changes it."""
    return p.requires_grad and p.is_floating_point()


def _is_matrix(p: Tensor) -> bool:
    return sum(n > 1 for n in p.shape) >= 2


def start_of(p: Tensor, other: Tensor) -> Vector:
    """The initial value of a vector: set by the constructor, or 0 where it drew the vector or left it unset."""
    if not torch.equal(p, other):  # NaN differs from itself
        return 0.0
    values: list[float] = p.detach().flatten().tolist()
    return values[0] if len(set(values)) == 1 else tuple(values)


def drawn_tensors(module: nn.Module, untrained: Tensors, width: int, tokens: int) -> tuple[dict[str, Tensor], Tensor]:
    """Tensors of two runs that differ, and tokens for each."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(2, *shape, generator=generator)

    trained = {name: p for name, p in module.named_parameters() if is_trained(p)}
    tensors = {name: (normal(*p.shape) * width**-0.5).requires_grad_() for name, p in trained.items()}
    tensors |= {name: torch.stack([value, value]) for name, value in untrained.items()}
    return tensors, normal(tokens, width)


def _try(module: nn.Module, tensors: Tensors, x_MD: Tensor) -> tuple[object, bool, tuple[str, ...]]:
    """The return of one call, whether it drew random numbers, and which buffers it moved."""
    before = torch.get_rng_state()
    own = {name: value.clone() for name, value in tensors.items()}
    try:
        with no_exit():
            returned: object = functional_call(module, own, (x_MD,))
    except Exception as error:  # a user's module may raise anything
        raise ClaimError(f"calling it raises {describe_error(error, code=True)}") from None
    moved = tuple(n for n, value in tensors.items() if not value.requires_grad and not torch.equal(value, own[n]))
    return returned, not torch.equal(before, torch.get_rng_state()), moved


def _has_slots(routing: Routing, layout: Layout) -> bool:
    """Whether all rows have equally many different partners, so that no slot was dropped."""
    times = routing.times.T if layout.by_expert else routing.times
    return bool((times <= 1).all()) and bool((times.sum(1) == times.sum(1)[0]).all())
