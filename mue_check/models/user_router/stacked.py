"""A user's router in the mixtures of a reference model: its parameters under the transfer rule, its calls over runs.

Its matrices are drawn and scaled by the rule as the built-in router's is; its vectors begin at what its constructor
set (0 where that was drawn); its buffers are each seed's own and stay, unless a training step moves them.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mue_check.errors import SpecError
from mue_check.models.balancing import LayerRouting
from mue_check.models.parameters import Parameter, Parameters, stable_seed
from mue_check.models.user_router.call import words_of
from mue_check.models.user_router.examine import Manner, build, examine, held_tensors
from mue_check.routing.adapter import Layout
from mue_check.routing.factory import Candidate, Shape
from mue_check.rules import Role
from mue_check.spec import Experts


@dataclass(kw_only=True)
class Foreign:
    """One user's router as it was loaded into this process, with what was found out about it so far."""

    candidate: Candidate
    named: str = ""
    """The module or the file that was asked for its factory."""
    layout: Layout | None = None
    manners: dict[Shape, Manner] = field(default_factory=dict)
    troubles: dict[Shape, str] = field(default_factory=dict)
    notices: dict[str, str] = field(default_factory=dict)
    """What people must know of it, the first of each kind."""
    told: int = 0

    def manner(self, shape: Shape) -> Manner:
        """How it behaves at a size; tried once."""
        if shape not in self.manners:
            found = self.manners[shape] = examine(self.candidate, shape, self.layout)
            self.layout = found.layout
            for kind, words in _notices(found, self.candidate):
                self.say(kind, words)
        return self.manners[shape]

    def capture_trouble(self, shape: Shape) -> str:
        """Why a training step with it cannot be captured; "" where nothing speaks against that. Tried once per size."""
        if shape not in self.troubles:
            self.troubles[shape] = _capture_trouble(self.candidate, shape, self.manner(shape))
            if self.troubles[shape]:
                self.say("capture", f"cannot be captured, so that it trains step by step: {self.troubles[shape]}")
        return self.troubles[shape]

    def news(self) -> tuple[str, ...]:
        """The notices since this was last asked."""
        new = list(self.notices.values())[self.told :]
        self.told += len(new)
        return tuple(new)

    def say(self, kind: str, words: str) -> None:
        """Leave a notice, unless there is one of that kind."""
        self.notices.setdefault(kind, f"router {self.candidate.name} {words}")


LOADED: dict[str, Foreign] = {}
"""By the name that a cell holds; ``dropin`` fills it."""


def shape_of(experts: Experts, width: int) -> Shape:
    """The sizes that a factory is asked for."""
    return Shape(d=width, f=0, experts=experts.total, activated=experts.activated, tokens=0)


class ForeignRouter:
    """The routers of all layers of one model. Holds the user's modules, and none of the tensors that they use."""

    def __init__(self, experts: Experts, *, width: int, depth: int) -> None:
        if experts.router not in LOADED:
            raise SpecError(f"router {experts.router!r} is a user's and not loaded here: name it with --router")
        self.foreign, self.total, self.depth = LOADED[experts.router], experts.total, depth
        self.shape = shape_of(experts, width)
        self.manner = self.foreign.manner(self.shape)
        self._modules: list[list[nn.Module]] = [[] for _ in range(depth)]

    @property
    def has_auxiliary_loss(self) -> bool:
        """Whether it returns a loss to be added as it is."""
        return "aux" in self.manner.layout.parts

    def declare(self, layer: int) -> Iterator[Parameter]:
        """The parameters of one layer. A single matrix is drawn and stored as the built-in router's, [D, E]."""
        for name, shape in self.manner.matrices.items():
            stored = (self.shape.d, self.total) if name == self.manner.gate else shape
            yield Parameter(name=self._name(layer, name), role=Role.ROUTER, shape=stored)
        for name, (shape, value) in self.manner.vectors.items():
            yield Parameter(name=self._name(layer, name), role=Role.BIAS, shape=shape, constant=value)

    def buffers(self, seeds: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """What does not train, [R, ...] by name: each run's as its seed makes it."""
        out: dict[str, Tensor] = {}
        for layer in range(self.depth if self.manner.held else 0):
            own = {seed: stable_seed(seed, f"block{layer}.router") for seed in set(seeds)}
            made = {seed: held_tensors(build(self.foreign.candidate, self.shape, own[seed])) for seed in own}
            for name in self.manner.held:
                out[self._name(layer, name)] = torch.stack([made[seed][name] for seed in seeds]).to(device)
        return out

    @property
    def moving(self) -> tuple[str, ...]:
        """The buffers that a training step changes in place."""
        return tuple(self._name(layer, name) for layer in range(self.depth) for name in self.manner.moving)

    @property
    def capture_trouble(self) -> str:
        """Why a training step cannot be captured; "" where nothing is known to speak against it."""
        return self.foreign.capture_trouble(self.shape)

    def cannot_be_captured(self, error: BaseException) -> None:
        """Remember that a capture failed, and why."""
        self.foreign.troubles[self.shape] = words_of(error)
        self.foreign.say("capture", f"cannot be captured, so that it trains step by step: {words_of(error)}")

    def __call__(self, layer: int, p: Parameters, y_RMD: Tensor) -> LayerRouting:
        """Route the tokens of one layer; logits are those that the router returns."""
        # training steps alone ask for gradients
        training = torch.is_grad_enabled()
        call, runs = self.manner.call(training=training), len(y_RMD)
        modules = self._modules_of(layer, runs if self.manner.slow else 1)
        for module in modules:
            module.train(training and self.manner.trains)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a module that is not ours; pytest may make errors of its warnings
            if self.manner.slow:
                found = call.looped(modules, self._tensors(layer, p), y_RMD)
            else:
                found = call.stacked(modules[0], self._tensors(layer, p), y_RMD)
        with torch.no_grad():
            for name in call.moving:
                p[self._name(layer, name)].copy_(found[name])
        sizes = (y_RMD.shape[1], self.total)
        routing = self.manner.reading.routing(found, *sizes, y_RMD.dtype)
        auxiliary_R = found["aux"].reshape(runs) if "aux" in found else None
        return LayerRouting(found.get("logits"), routing, sizes=sizes, auxiliary_R=auxiliary_R)

    def logits(self, layer: int, p: Parameters, y_RMD: Tensor) -> Tensor | None:
        """[R, M, E] of a router that has them without returning them: a single matrix between tokens and experts."""
        return None if self.manner.gate is None else y_RMD @ p[self._name(layer, self.manner.gate)]

    def _name(self, layer: int, name: str) -> str:
        return f"block{layer}.router" + ("" if name == self.manner.gate else f".{name}")

    def _tensors(self, layer: int, p: Parameters) -> dict[str, Tensor]:
        """What the module of one layer is called with, under its own names."""
        manner = self.manner
        out = {name: p[self._name(layer, name)] for name in (*manner.matrices, *manner.vectors, *manner.held)}
        if manner.gate is not None and manner.matrices[manner.gate] == (self.total, self.shape.d):
            out[manner.gate] = out[manner.gate].transpose(1, 2)
        # the step's own values stay as they were for its backward pass, and a look at the model moves nothing
        return out | {name: out[name].clone() for name in manner.moving}

    def _modules_of(self, layer: int, count: int) -> list[nn.Module]:
        """Modules of this layer alone, for what they may keep beside their tensors."""
        held = self._modules[layer]
        while len(held) < count:
            held.append(build(self.foreign.candidate, self.shape, 0))
        return held[:count]


def _capture_trouble(candidate: Candidate, shape: Shape, manner: Manner) -> str:
    """Two runs of one layer, forward and backward, on fake tensors: what needs a value on the host raises there."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # slow to import, and for a GPU alone

    from mue_check.models.capture_guard import capture_guard

    call, modules = manner.call(training=True), [build(candidate, shape, 0).train(manner.trains) for _ in range(2)]
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), capture_guard(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            forms = {**manner.matrices, **{name: form for name, (form, _) in manner.vectors.items()}}
            tensors = {name: torch.empty(2, *form, requires_grad=True) for name, form in forms.items()}
            tensors |= {name: torch.empty(2, *v.shape, dtype=v.dtype) for name, v in manner.held.items()}
            x_RMD = torch.empty(2, 48, shape.d)
            found = call.looped(modules, tensors, x_RMD) if manner.slow else call.stacked(modules[0], tensors, x_RMD)
            weights = manner.reading.routing(found, 48, shape.experts, x_RMD.dtype).weights
            if weights.requires_grad:
                torch.autograd.backward(weights.sum())
    except Exception as error:  # whatever a user's module raises there
        return words_of(error)
    return ""


def _notices(manner: Manner, candidate: Candidate) -> Iterator[tuple[str, str]]:
    """What makes a router slow, or other than its author has it."""
    if manner.slow:
        yield "slow", f"is called run after run, since vmap refuses it: {manner.slow}"
    if manner.unbatched:
        yield "unbatched", f"is called for all runs at once, but for {', '.join(manner.unbatched)}: run after run"
    if not manner.trains:
        yield "noise", "draws random numbers in training mode: it stays in eval mode, without them"
    if manner.mutates:
        yield "mutates", "changes the tokens that it is given, in place: the experts get the changed ones"
    if manner.loose or candidate.claim.auxiliary_loss:
        where = ", ".join(manner.loose) or "auxiliary_loss of its claim"
        yield "auxiliary", f"has a loss ({where}) that is left out: returns = {{'aux': ...}} in its claim adds it"
    if candidate.claim.apply_on == "input":
        yield "input", "claims that weights multiply the experts' input: here they multiply the output"
