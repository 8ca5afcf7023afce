"""A case: a candidate at one shape and seed, and what checks need of it: modules, tokens, routings, logits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mue_check.conformance.torch_calls import calls_of, exactly
from mue_check.errors import ClaimError, UnreadableError
from mue_check.routing.adapter import Layout, Size, learn_layout
from mue_check.routing.canonical import Routing
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.factory import SHAPES, Candidate, Shape, fitted

if TYPE_CHECKING:
    from mue_check.conformance.block import Form


_ROUNDED = 0.03
"""Of the largest logit: what a gate in bfloat16 makes of it, and no norm or temperature."""


@dataclass
class Found:
    """What was learned of a candidate at a shape where nothing is ambiguous, shared by all its cases."""

    layout: Layout | None = None
    router: str | None = None
    """Dotted name of the router inside a block; "" for a candidate that is a router."""
    linear: bool = False
    """The logits are x W^T of the router's one [E, d] weight, as far as can be seen."""
    gate_call: int | None = None
    """Which call of a gate's function is given the logits."""
    batched: bool | None = None
    """Whether it is called with [1, T, D]: a block, or a router that takes no [T, D]; None until it was tried."""
    trouble: ClaimError | None = None
    """Why no layout was found."""
    experts: "Form | None" = None
    """Where a block's experts lie and what they compute."""
    no_experts: str = ""
    """Why they were not found."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One candidate, shape and seed on a device."""

    candidate: Candidate
    shape: Shape
    seed: int
    device: torch.device
    chosen: bool = False
    """The user named this shape: what is odd about it is then no matter of taste."""
    found: Found = field(default_factory=Found)

    @property
    def claim(self) -> RoutingSpec:
        """What the candidate claims."""
        return self.candidate.claim

    def at(self, **changes: int) -> "Case":
        """The same at another shape that the claim allows."""
        return replace(self, shape=fitted(replace(self.shape, **changes), self.claim))

    def build(self, *, dtype: torch.dtype = torch.float32, train: bool = False) -> "Built":
        """A fresh module; the same seed draws the same weights."""
        with torch.random.fork_rng(devices=_cuda(self.device)):
            # torch.manual_seed would seed every kind of device, with a stack trace each: a third of a check's time
            torch.default_generator.manual_seed(1000 + self.seed)
            if self.device.type == "cuda":
                torch.cuda.manual_seed(1000 + self.seed)
            module = self.candidate.build(self.shape).to(device=self.device, dtype=dtype)
            built = Built(case=self, module=module, dtype=dtype)
            if any(map(is_lazy, [*module.parameters(), *module.buffers()])):
                built.call(self.tokens())  # lazy layers take their sizes from a first call
        module.train(train)
        return built

    def tokens(self, draw: int = 0, *, count: int | None = None) -> Tensor:
        """[T, D] standard normal activations, as a norm before the block gives them."""
        generator = torch.Generator().manual_seed(7919 * self.seed + draw)
        x = torch.randn(count or self.shape.tokens, self.shape.d, generator=generator)
        return x.to(self.device)

    @property
    def first(self) -> "Case":
        """The same where nothing is ambiguous; with all experts activated no choice were to be seen."""
        case = replace(self, shape=fitted(SHAPES[0], self.claim))
        return case if case.shape.experts > case.shape.activated else case.at(experts=2 * case.shape.experts)

    def learn(self) -> None:
        """Find the layout of what the router returns, once, at a shape where all sizes differ."""
        if self.found.layout is not None or self.found.trouble is not None:
            return
        case = self.first
        try:
            self.found.router, self.found.layout = _search(case)
        except ClaimError as error:
            self.found.trouble = error
        self.found.gate_call = _gate_call(case)
        if self.found.layout is not None:
            self.found.linear = _follows(case)

    @property
    def batched(self) -> bool:
        """Whether the candidate is called with [1, T, D]."""
        if self.found.batched is None:
            self.found.batched = self.candidate.kind == "block" or _wants_batch(self)
        return self.found.batched


@dataclass(frozen=True, kw_only=True)
class Built:
    """A module of a case, ready to be called."""

    case: Case
    module: nn.Module
    dtype: torch.dtype

    @cached_property
    def router(self) -> nn.Module | None:
        """The module that routes: itself, or the block's part; None in a block that has none."""
        if self.case.candidate.kind == "router":
            return self.module
        self.case.learn()
        name = self.case.found.router
        return None if name is None else self.module.get_submodule(name)

    def call(self, x: Tensor) -> Any:
        """What the candidate returns for tokens [T, D]; a block sees them as one sequence."""
        x = x.to(self.dtype)
        x = x.unsqueeze(0) if self.case.batched else x
        with exactly(self.dtype):
            return self.module(x)

    def output(self, x: Tensor, rows: int = 1) -> Tensor:
        """[T, D]: a block's output for tokens as so many sequences."""
        x = x.to(self.dtype)
        with exactly(self.dtype):
            returned = self.module(x.view(rows, -1, x.shape[-1]))
        return block_output(returned, (rows, len(x) // rows, x.shape[-1])).reshape(x.shape)

    def route(self, x: Tensor) -> Routing:
        """The routing of tokens [T, D]; ClaimError where it cannot be read."""
        self.case.learn()
        layout = self.case.found.layout
        if layout is not None:
            return layout.read(*self.routed(x))
        if self.case.candidate.kind == "block":
            return self._shown(x)
        self.call(x)  # what is wrong with the call itself comes first
        assert self.case.found.trouble is not None
        raise self.case.found.trouble

    def acting(self, x: Tensor) -> Routing:
        """The weights that act on the experts: a block may scale or normalize what its router returns."""
        if self.case.candidate.kind == "router":
            return self.route(x)
        try:
            return self._shown(x)
        except ClaimError:  # experts that cannot be told from one another show no weights
            return self.route(x)

    def _shown(self, x: Tensor) -> Routing:
        """The routing as a block's output shows it."""
        from mue_check.conformance.block_probe import read_routing

        return read_routing(self, x)

    def routed(self, x: Tensor) -> tuple[Any, Size]:
        """What the router itself returns for tokens [T, D]."""
        shape = self.case.shape
        size = Size(tokens=len(x), experts=shape.experts, activated=shape.activated, lead=(1, len(x)))
        if self.case.candidate.kind == "router":
            return self.call(x), size
        if self.router is None:
            raise self.case.found.trouble or UnreadableError("no part of the block returns a routing")
        with outputs_of(self.module, lambda m: m is self.router) as seen:
            self.call(x)
        if not seen:
            raise ClaimError(f"the block's {self.case.found.router} was not called")
        return seen[0][2], size

    def logits(self, x: Tensor) -> Tensor | None:
        """[T, E]: those declared, those that the gate is given, those returned, or x W^T; None where there are none."""
        routing = self.route(x)
        given = None if "logits" in self.case.claim.returns else self.gate_logits(x)
        if given is not None:
            return given
        if routing.logits is not None:
            return routing.logits
        return self.linear_logits(x) if self.case.found.linear else None

    def gate_logits(self, x: Tensor) -> Tensor | None:
        """[T, E]: what the gate's function is given; None where that is not to be seen."""
        self.case.learn()
        given, _ = self._watched(x)
        return given

    def logits_call(self, x: Tensor) -> tuple[int, Tensor] | None:
        """The first call of torch whose result is the logits, and those [T, E]; None where that is not to be seen."""
        given, made = self._watched(x)
        return next(((n, given) for n, r in made if given is not None and same(r, given)), None)

    def _watched(self, x: Tensor) -> tuple[Tensor | None, list[tuple[int, Tensor]]]:
        """([T, E] that the gate's function is given, each [T, E] that was made with the number of its call)."""
        size = len(x), self.case.shape.experts
        seen: list[Tensor] = []
        all_made: list[tuple[int, Tensor]] = []

        def meet(number: int, given: Tensor) -> None:
            if number == self.case.found.gate_call and _by_expert(given, *size):
                seen.append(given.clone())  # the function itself may write over it

        def made(number: int, result: Any) -> Any:
            if isinstance(result, Tensor) and _by_expert(result, *size):
                all_made.append((number, result.detach().clone()))
            return result

        with calls_of(self.scope, meet=meet, made=made):
            self.call(x)
        return (seen[0].reshape(size) if seen else None), all_made

    @property
    def scope(self) -> nn.Module:
        """Where logits are looked for: the router, or the whole block where none was found."""
        return self.module if self.router is None else self.router

    def linear_logits(self, x: Tensor, *, dtype: torch.dtype | None = None) -> Tensor | None:
        """[T, E]: x W^T, and the router's bias where it has one that is not for the choice alone; in ``dtype``."""
        weight = self.gate_weight()
        if weight is None or self.router is None:
            return None
        size, name = (self.case.shape.experts,), (self.case.claim.selection_bias or "").rsplit(".", 1)[-1]
        if self.case.candidate.kind == "block":
            from mue_check.conformance.block import router_input

            x = router_input(self, x)
        biases = [p for n, p in self.router.named_parameters() if p.shape == size and n.rsplit(".", 1)[-1] != name]
        dtype = dtype or weight.dtype
        bias = biases[0].to(dtype) if len(biases) == 1 else None
        return nn.functional.linear(x.to(dtype), weight.to(dtype), bias)

    def gate_weight(self) -> Tensor | None:
        """The router's own [E, D] matrix (transposed if it lies that way); None where there is not just one."""
        if self.router is None:
            return None
        e, d = self.case.shape.experts, self.case.shape.d
        found = [
            p if p.shape == (e, d) else p.T for p in self.router.parameters() if tuple(p.shape) in ((e, d), (d, e))
        ]
        return found[0] if len(found) == 1 else None


def block_output(returned: object, shape: tuple[int, ...]) -> Tensor:
    """The one tensor of the input's shape in what a block returns."""
    parts = list(returned.values()) if isinstance(returned, dict) else returned
    leaves = parts if isinstance(parts, tuple | list) else [parts]
    floats = [t for t in leaves if isinstance(t, Tensor) and t.is_floating_point()]
    found = [t for t in floats if tuple(t.shape) == shape]
    if not found:  # Llama 4's block leaves it to its layer to put batch and time apart again
        found = [t.reshape(shape) for t in floats if tuple(t.shape) == (prod(shape[:-1]), shape[-1])]
    if len(found) != 1:
        got = ", ".join(f"{list(t.shape)}" if isinstance(t, Tensor) else type(t).__name__ for t in leaves)
        raise ClaimError(f"the block returns ({got}); just one tensor of its input's shape {list(shape)} is needed")
    return found[0]


@contextmanager
def outputs_of(
    module: nn.Module, wanted: Callable[[nn.Module], bool]
) -> Iterator[list[tuple[str, tuple[Any, ...], Any]]]:
    """Collects (name, inputs, output) of the wanted submodules' calls while it is open."""
    seen: list[tuple[str, tuple[Any, ...], Any]] = []

    def record(name: str) -> Callable[..., None]:
        return lambda _, inputs, output: seen.append((name, inputs, output))

    handles = [m.register_forward_hook(record(name)) for name, m in module.named_modules() if wanted(m)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _search(case: Case) -> tuple[str, Layout]:
    """The router's name and the layout of its return."""
    built, x, shape = case.build(), case.tokens(), case.shape
    size = Size(tokens=len(x), experts=shape.experts, activated=shape.activated, lead=(1, len(x)))
    if case.candidate.kind == "router":
        return "", learn_layout(built.call(x), size, case.claim)
    declared = case.claim.router
    if declared is not None:
        try:
            wanted = built.module.get_submodule(declared)
        except AttributeError:
            raise ClaimError(f"the block has no submodule {declared!r}, which the claim names as its router") from None
    with outputs_of(built.module, lambda m: m is not built.module and (declared is None or m is wanted)) as seen:
        built.call(x)
    trouble: ClaimError = UnreadableError("no part of the block returns a routing: name its router in the claim")
    # calls end from the inside out; the last that can be read is the outermost
    for name, _, output in reversed(seen):
        try:
            return name, learn_layout(output, size, case.claim)
        except ClaimError as error:
            if declared is not None:
                trouble = error
    raise trouble


def _wants_batch(case: Case) -> bool:
    """Whether a router refuses tokens [T, D] and takes [1, T, D]."""
    try:
        module, x = case.first.build().module, case.first.tokens()
    except Exception:  # what is wrong there will be said where it is asked for
        return False
    for tokens in (x, x.unsqueeze(0)):
        try:
            module(tokens)
        except Exception:
            continue
        return tokens.dim() == 3
    return False


def _gate_call(case: Case) -> int | None:
    """The first call of a gate's function that is given [T, E]."""
    seen: list[int] = []
    built, x = case.build(), case.tokens()

    def meet(number: int, given: Tensor) -> None:
        if _by_expert(given, len(x), case.shape.experts):
            seen.append(number)

    with calls_of(built.scope, meet=meet):
        built.call(x)
    return seen[0] if seen else None


def same(made: object, logits: Tensor) -> bool:
    """Whether something is just these logits [T, E], of whatever type and with whatever axes of batch and time."""
    if not isinstance(made, Tensor) or not _by_expert(made, *logits.shape):
        return False
    return torch.equal(made.reshape(logits.shape), logits)


def _by_expert(given: Tensor, tokens: int, experts: int) -> bool:
    whole = given.is_floating_point() and given.shape[-1:] == (experts,)
    return whole and given.numel() == tokens * experts


def _follows(case: Case) -> bool:
    """Whether logits are x W^T: those that were seen, else by the choice, any other overlap than chance."""
    built, x, k = case.build(), case.tokens(), case.shape.activated
    logits, given = built.linear_logits(x), built.gate_logits(x)
    if logits is None:
        return False
    if given is not None:
        return float((given - logits).abs().max()) <= _ROUNDED * float(logits.abs().max())
    mask = built.route(x).mask
    best = torch.zeros_like(mask).scatter(-1, logits.topk(k, dim=-1).indices, True)
    overlap, chance = float((mask & best).sum() / mask.sum().clamp_min(1)), k / case.shape.experts
    return overlap > (1 + chance) / 2 or overlap < chance / 4


def _cuda(device: torch.device) -> list[int]:
    return [torch.cuda.current_device()] if device.type == "cuda" else []
