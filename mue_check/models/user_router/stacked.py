"""A user's router in the layers of a reference model: its parameters under the transfer rule, its calls for all runs.

The rule draws and scales its matrices as it does the built-in router's. Its vectors begin at the values that its
constructor set (0 where the constructor drew them). Each seed has its own buffers, and only a training step moves them.
"""

import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from mue_check.models.balancing import LayerRouting
from mue_check.models.parameters import Parameter, Parameters, stable_seed
from mue_check.models.user_router.examine import build, untrained_tensors
from mue_check.models.user_router.loaded import loaded_router, shape_of
from mue_check.rules import Role
from mue_check.spec import Experts
from mue_check.user_code import describe_error


class StackedUserRouter:
    """A user's router in all layers of one model. It holds the user's modules, but none of the tensors they use."""

    def __init__(self, experts: Experts, *, width: int, depth: int) -> None:
        self.router, self.total, self.depth = loaded_router(experts.router), experts.total, depth
        self.shape = shape_of(experts, width)
        self.profile = self.router.profile(self.shape)
        self._modules: list[list[nn.Module]] = [[] for _ in range(depth)]

    @property
    def has_auxiliary_loss(self) -> bool:
        """Whether it returns a loss, which is added without a coefficient."""
        return "aux" in self.profile.layout.parts

    def declare(self, layer: int) -> Iterator[Parameter]:
        """The parameters of one layer. A single matrix is drawn and stored as the built-in router's, [D, E]."""
        for name, shape in self.profile.matrices.items():
            stored = (self.shape.d, self.total) if name == self.profile.gate else shape
            yield Parameter(name=self._name(layer, name), role=Role.ROUTER, shape=stored)
        for name, (shape, value) in self.profile.vectors.items():
            yield Parameter(name=self._name(layer, name), role=Role.BIAS, shape=shape, constant=value)

    def buffers(self, seeds: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """The tensors that do not train, [R, ...] by name, each run's drawn from its own seed."""
        out: dict[str, Tensor] = {}
        for layer in range(self.depth if self.profile.untrained else 0):
            own = {seed: stable_seed(seed, f"block{layer}.router") for seed in set(seeds)}
            made = {seed: untrained_tensors(build(self.router.candidate, self.shape, own[seed])) for seed in own}
            for name in self.profile.untrained:
                out[self._name(layer, name)] = torch.stack([made[seed][name] for seed in seeds]).to(device)
        return out

    @property
    def moving(self) -> tuple[str, ...]:
        """The buffers that a training step changes in place."""
        return tuple(self._name(layer, name) for layer in range(self.depth) for name in self.profile.moving)

    @property
    def capture_trouble(self) -> str:
        """Why a training step cannot be captured; "" if no reason is known."""
        return self.router.capture_trouble(self.shape)

    def cannot_be_captured(self, error: BaseException) -> None:
        """Remember that a capture failed, and why."""
        self.router.cannot_be_captured(self.shape, describe_error(error, code=True))

    def __call__(self, layer: int, p: Parameters, y_RMD: Tensor) -> LayerRouting:
        """Route the tokens of one layer; logits are those that the router returns."""
        # only training steps need gradients
        training = torch.is_grad_enabled()
        call, runs = self.profile.call(training=training), len(y_RMD)
        modules = self._modules_of(layer, runs if self.profile.slow else 1)
        for module in modules:
            module.train(training and self.profile.trains)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user's module may warn, and pytest may turn warnings into errors
            if self.profile.slow:
                found = call.looped(modules, self._tensors(layer, p), y_RMD)
            else:
                found = call.stacked(modules[0], self._tensors(layer, p), y_RMD)
        with torch.no_grad():
            for name in call.moving:
                p[self._name(layer, name)].copy_(found[name])
        sizes = (y_RMD.shape[1], self.total)
        choice = self.profile.reading.choice(found, *sizes, y_RMD.dtype)
        auxiliary_R = found["aux"].reshape(runs) if "aux" in found else None
        return LayerRouting(found.get("logits"), choice, sizes=sizes, auxiliary_R=auxiliary_R)

    def logits(self, layer: int, p: Parameters, y_RMD: Tensor) -> Tensor | None:
        """[R, M, E] of a router that does not return its logits, if its one matrix maps tokens to experts."""
        return None if self.profile.gate is None else y_RMD @ p[self._name(layer, self.profile.gate)]

    def _name(self, layer: int, name: str) -> str:
        return f"block{layer}.router" + ("" if name == self.profile.gate else f".{name}")

    def _tensors(self, layer: int, p: Parameters) -> dict[str, Tensor]:
        """The tensors of one layer's module, under its own names."""
        profile = self.profile
        out = {name: p[self._name(layer, name)] for name in (*profile.matrices, *profile.vectors, *profile.untrained)}
        if profile.gate is not None and profile.matrices[profile.gate] == (self.total, self.shape.d):
            out[profile.gate] = out[profile.gate].transpose(1, 2)
        # the backward pass needs the step's own values, and an evaluation moves nothing
        return out | {name: out[name].clone() for name in profile.moving}

    def _modules_of(self, layer: int, count: int) -> list[nn.Module]:
        """Modules of this layer alone: they may keep state outside their tensors."""
        modules = self._modules[layer]
        while len(modules) < count:
            modules.append(build(self.router.candidate, self.shape, 0))
        return modules[:count]
