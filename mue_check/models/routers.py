"""The routers of a mixture, in all layers of all runs: how tokens choose experts, and what is kept between batches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mue_check.models.balancing import (
    AUXILIARY_COEFFICIENT,
    LayerRouting,
    auxiliary_loss,
    update_selection_bias,
)
from mue_check.models.fused_routing import choose_by_sigmoid
from mue_check.models.load_steering import LoadSteering
from mue_check.models.parameters import Parameter, Parameters
from mue_check.models.pointwise import wide
from mue_check.models.tap import Tap, no_tap
from mue_check.models.user_router.stacked import StackedUserRouter
from mue_check.routing.content_blind import expected_draws
from mue_check.routing.variants import get_variant, is_users, route
from mue_check.rules import Role
from mue_check.spec import Experts, ModelSpec


@dataclass(frozen=True, kw_only=True)
class Routers:
    """The routers of one model. ``of`` makes them without state; ``start`` gives a stack of runs its own.

    ``bias_LRE`` is the selection bias of published balancing, ``steering`` what moves the load to a target,
    ``expected_E`` how often content_blind draws each expert, and ``buffers`` the untrained tensors of a user's router,
    [R, ...] by name.
    """

    experts: Experts
    width: int
    depth: int
    user: StackedUserRouter | None = None
    bias_LRE: Tensor | None = None
    steering: LoadSteering | None = None
    expected_E: Tensor | None = None
    buffers: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: ModelSpec) -> "Routers | None":
        """Those of a model; None if it is dense."""
        experts = spec.feed_forward
        if not isinstance(experts, Experts):
            return None
        user = StackedUserRouter(experts, width=spec.width, depth=spec.depth) if is_users(experts.router) else None
        return cls(experts=experts, width=spec.width, depth=spec.depth, user=user)

    def start(self, seeds: Sequence[int], device: torch.device) -> "Routers":
        """The same routers with the state of a stack before its first step."""
        return self._stateful(len(seeds), device, {} if self.user is None else self.user.buffers(seeds, device))

    def restart(self, seeds: Sequence[int], device: torch.device) -> None:
        """Return to that state with other seeds, in place."""
        for tensor, value in zip(self._tensors(), self.start(seeds, device)._tensors(), strict=True):
            tensor.copy_(value)

    def clones(self, run: int, count: int, device: torch.device, load: str = "") -> "Routers":
        """Routers of ``count`` runs that begin in the state of ``run``, steered to another ``load`` if one is given."""
        buffers = {name: clone(value, run, count) for name, value in self.buffers.items()}
        new = replace(self, experts=self._experts_with(load))._stateful(count, device, buffers)
        if new.bias_LRE is not None and self.bias_LRE is not None:
            new.bias_LRE.copy_(self.bias_LRE[:, run : run + 1].expand_as(new.bias_LRE))
        if new.steering is not None and self.steering is not None:
            new.steering.begin_at(self.steering, run)
        return new

    def _experts_with(self, load: str) -> Experts:
        if not load:
            return self.experts
        scored = get_variant(self.experts.router).scored
        return replace(self.experts, load=load, balance="selection_bias" if scored else self.experts.balance)

    def _stateful(self, runs: int, device: torch.device, buffers: Mapping[str, Tensor]) -> "Routers":
        experts, depth = self.experts, self.depth
        by_place = get_variant(experts.router).by_place
        biased = experts.balance == "selection_bias" and not experts.load
        steered = bool(experts.load) and not by_place
        return replace(
            self,
            bias_LRE=torch.zeros(depth, runs, experts.total, device=device) if biased else None,
            steering=LoadSteering(experts, depth=depth, runs=runs, device=device) if steered else None,
            expected_E=expected_draws(experts, device) if by_place else None,
            buffers=buffers,
        )

    def frozen(self) -> "Routers":
        """For a pass that leaves no trace."""
        return self if self.steering is None else replace(self, steering=self.steering.copy())

    def moving(self) -> list[Tensor]:
        """Everything that a step changes in place."""
        return self._tensors(() if self.user is None else self.user.moving)

    def _tensors(self, names: Iterable[str] | None = None) -> list[Tensor]:
        """The state, with these ``buffers`` or all."""
        bias = [] if self.bias_LRE is None else [self.bias_LRE]
        steering = [] if self.steering is None else self.steering.buffers()
        return [*bias, *steering, *(self.buffers[name] for name in (self.buffers if names is None else names))]

    def declare(self, layer: int) -> Iterator[Parameter]:
        """The parameters of one layer's router."""
        if self.user is not None:
            yield from self.user.declare(layer)
        else:
            yield Parameter(name=_name(layer), role=Role.ROUTER, shape=(self.width, self.experts.total))

    def decide(
        self, layer: int, p: Parameters, y_RMD: Tensor, *, place_RM: Tensor | None = None, tap: Tap = no_tap
    ) -> LayerRouting:
        """Route the tokens of one layer. ``place_RM`` is a key of each token's place, for content_blind."""
        if self.user is not None:
            return self._ask_user(self.user, layer, {**p, **self.buffers}, y_RMD, tap)
        logits_RME = wide(torch.bmm(y_RMD, p[_name(layer)]))
        tap(_name(layer) + "_logits", logits_RME)
        bias_RE = None if self.bias_LRE is None else self.bias_LRE[layer]
        if self.steering is not None:
            bias_RE = self.steering.solve(layer, logits_RME)
        choice = route(
            logits_RME,
            self.experts,
            bias_RE=bias_RE,
            place_RM=place_RM,
            layer=layer,
            expected_E=self.expected_E,
            by_sigmoid=choose_by_sigmoid,
        )
        return LayerRouting(logits_RME, choice)

    def _ask_user(self, user: StackedUserRouter, layer: int, p: Parameters, y_RMD: Tensor, tap: Tap) -> LayerRouting:
        decided = user(layer, p, y_RMD)
        if tap is not no_tap:
            logits_RME = user.logits(layer, p, y_RMD) if decided.logits_RME is None else decided.logits_RME
            if logits_RME is not None:
                tap(_name(layer) + "_logits", logits_RME)
        return decided

    @property
    def watched(self) -> bool:
        """Whether a training step needs to know how each layer routed."""
        return self.experts.balance != "none" or (self.user is not None and self.user.has_auxiliary_loss)

    def objective(self, losses_R: Tensor, layers: Sequence[LayerRouting]) -> Tensor:
        """What training minimizes: the losses, plus those that balance the load."""
        if self.experts.balance == "auxiliary_loss":
            losses_R = losses_R + AUXILIARY_COEFFICIENT * auxiliary_loss(layers, self.experts.router)
        for layer in layers:
            if layer.auxiliary_R is not None:
                losses_R = losses_R + layer.auxiliary_R
        return losses_R

    def after_step(self, layers: Sequence[LayerRouting]) -> None:
        """Move the selection bias by what a step saw."""
        if self.bias_LRE is not None:
            update_selection_bias(self.bias_LRE, layers)


def clone(value: Tensor, run: int, count: int) -> Tensor:
    """One run of [R, ...], ``count`` times."""
    return value.detach()[run : run + 1].repeat(count, *[1] * (value.dim() - 1))


def _name(layer: int) -> str:
    return f"block{layer}.router"
