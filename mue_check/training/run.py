"""A stack of runs in training: the step, its log, and evaluation on the held-out part."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mue_check.data import Data
from mue_check.models.balancing import LayerRouting, RoutingStatistics, routing_statistics
from mue_check.models.families import family_of
from mue_check.models.family import Examples, Model
from mue_check.models.routers import Routers
from mue_check.models.tap import Tap
from mue_check.models.user_router.stacked import StackedUserRouter
from mue_check.precision import Precision, require_precision
from mue_check.rules import Factors, HyperParameters, Prescription, Role
from mue_check.spec import ModelSpec, TrainSpec
from mue_check.training.adamw import AdamW
from mue_check.training.capture import Stepper, capture, capture_if_possible
from mue_check.training.compiling import compiled_if_asked
from mue_check.training.load_scaling import update_factors
from mue_check.training.products import set_products
from mue_check.training.state import RunState


class Stack:
    """R runs of one model on one data set: run r has learning rate lrs[r] and seed seeds[r].

    ``weight_decays`` and ``init_stds`` give each run its own base value in place of ``base``'s, and ``role_factors``
    multiply the init std, learning rate and weight decay of some roles in each run. ``load_scaling`` is the strength
    of the causal probe (``training.load_scaling``). ``precision`` sets this process's matrix products from now on:
    train one stack after the other.

    A seed fixes init and data order: runs of one seed differ only in the swept value, and arms with the same seeds see
    the same data.
    """

    def __init__(
        self,
        model: ModelSpec,
        prescription: Prescription,
        base: HyperParameters,
        train: TrainSpec,
        data: Data,
        *,
        lrs: Sequence[float],
        seeds: Sequence[int],
        device: torch.device,
        weight_decays: Sequence[float] | None = None,
        init_stds: Sequence[float] | None = None,
        role_factors: Sequence[Mapping[Role, Factors]] | None = None,
        optimizer: type[AdamW] = AdamW,
        load_scaling: float = 0.0,
        precision: Precision = "fp32",
    ) -> None:
        family = family_of(model)
        self.base, self.train, self.device, self.runs = base, train, device, len(seeds)
        self.precision, self.load_scaling = require_precision(precision, device.type), load_scaling
        self.examples: Examples[Any] = family.examples(model, train, data, self.runs, device)
        self.model: Model[Any] = family.model(model, prescription, train, data)
        self.routers = None if self.model.routers is None else self.model.routers.start(seeds, device)
        if load_scaling and not (self.routers and self.routers.experts.load):
            raise ValueError("load_scaling needs experts with a target load")
        self.state = RunState(
            self.model.parameters,
            init_std={Role(row.role): row.init_std for row in prescription.values(base)},
            runs=self.runs,
            device=device,
            dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        )
        self.optimizer = optimizer(self.state, prescription, base, train=train, by_element=load_scaling != 0)
        # torch.compile may not understand a user's router
        optional = compiled_if_asked if self._users_router is None else lambda function: function
        self.losses, self.update = optional(self.model.losses), optional(self.optimizer.step)
        self.counter = torch.empty(1, dtype=torch.int64, device=device)
        self.log = torch.empty(train.steps, self.runs, device=device)
        self.restart(lrs=lrs, seeds=seeds, weight_decays=weight_decays, init_stds=init_stds, role_factors=role_factors)

    @torch.no_grad()
    def restart(
        self,
        *,
        lrs: Sequence[float],
        seeds: Sequence[int],
        weight_decays: Sequence[float] | None = None,
        init_stds: Sequence[float] | None = None,
        role_factors: Sequence[Mapping[Role, Factors]] | None = None,
    ) -> "Stack":
        """Begin again with other runs, in the same memory: captured graphs stay valid."""
        given = {"lrs": lrs, "weight_decays": weight_decays, "init_stds": init_stds, "role_factors": role_factors}
        for name, values in given.items():
            if values is not None and len(values) != len(seeds):
                raise ValueError(f"{len(values)} {name} for {len(seeds)} seeds: one of each per run")
        if len(seeds) != self.runs:
            raise ValueError(f"{len(seeds)} seeds for a stack of {self.runs} runs")
        set_products(self.precision, self.device)
        self.state.restart(seeds)
        if init_stds is not None:
            self.state.scale_init(dict.fromkeys(Role, torch.tensor(init_stds) / self.base.init_std))
        own = _by_role(role_factors or [])
        self.state.scale_init(own("init_std"))
        update = None
        if self.load_scaling and self.routers is not None:
            update = update_factors(self.state, self.routers.experts.target_load, self.load_scaling)
        decays = [self.base.weight_decay] * self.runs if weight_decays is None else weight_decays
        self.optimizer.restart(
            torch.tensor(lrs), torch.tensor(decays), update, lr_factors=own("lr"), decay_factors=own("weight_decay")
        )
        if self.routers is not None:
            self.routers.restart(seeds, self.device)
        self.examples.restart(seeds)
        self.counter.zero_()
        self.log.fill_(float("nan"))
        return self

    @property
    def _users_router(self) -> StackedUserRouter | None:
        return None if self.routers is None else self.routers.user

    @cached_property
    def stepper(self) -> Stepper:
        """The training step, captured whole where the device allows."""
        stack = weakref.proxy(self)  # a reference to itself would keep its memory until the next garbage collection

        def step() -> None:
            training_step(stack)

        router = self._users_router
        if router is None:
            return capture(step, self.buffers(), self.device)
        if self.device.type == "cuda" and router.capture_trouble:
            return Stepper(step)
        return capture_if_possible(step, self.buffers(), self.device, router.cannot_be_captured)

    def buffers(self) -> list[Tensor]:
        """Everything that a step changes in place."""
        routers = [] if self.routers is None else self.routers.moving()
        return [*self.state.buffers(), *routers, self.counter, self.log]

    def batch(self) -> Any:
        """The inputs of the next step."""
        return self.examples.at(self.counter)

    def advance(self, steps: int) -> None:
        """Train for ``steps`` more steps."""
        self.stepper.advance(steps)

    @torch.no_grad()
    def evaluate(self) -> Tensor:
        """[R] float64: mean loss on the held-out part."""
        self.state.refresh()
        total, examples = torch.zeros(self.runs, dtype=torch.float64, device=self.device), 0
        for inputs, count in self.examples.heldout():
            total += self.model.losses(self.state.leaves, inputs, routers=self._frozen()).double() * count
            examples += count
        return total / examples

    @torch.no_grad()
    def probe(self, tap: Tap, inputs: Any) -> None:
        """Show each activation of a forward pass to ``tap``."""
        self.state.refresh()
        self.model.forward(self.state.leaves, inputs, tap, routers=self._frozen())

    @torch.no_grad()
    def routing(self, inputs: Any) -> list[RoutingStatistics]:
        """How each layer routes these inputs; empty for a dense model."""
        self.state.refresh()
        layers: list[LayerRouting] = []
        self.model.forward(self.state.leaves, inputs, routers=self._frozen(), layers=layers)
        return [routing_statistics(layer) for layer in layers]

    def _frozen(self) -> Routers | None:
        return None if self.routers is None else self.routers.frozen()


def _by_role(runs: Sequence[Mapping[Role, Factors]]) -> Callable[[str], Mapping[Role, Tensor]]:
    """A function from the name of a factor to its values [R], for every role that some run changes."""
    roles = sorted({role for run in runs for role in run})

    def factors(name: str) -> Mapping[Role, Tensor]:
        return {role: torch.tensor([getattr(run.get(role, Factors()), name) for run in runs]) for role in roles}

    return factors


def training_step(stack: Stack) -> None:
    """Forward, backward, AdamW and log, with no host sync and no Python value that varies between steps.

    The loss is a sum over runs, never a mean or a norm: the gradient of one run does not depend on the others. The log
    holds the model's loss alone, without what balances the load.
    """
    routers = stack.routers
    stack.state.refresh()
    layers: list[LayerRouting] | None = [] if routers is not None and routers.watched else None
    losses_R = stack.losses(stack.state.leaves, stack.batch(), routers=routers, layers=layers)
    objective_R = losses_R if routers is None or layers is None else routers.objective(losses_R, layers)
    stack.state.differentiate(objective_R)
    stack.update(stack.counter)
    if routers is not None and layers is not None:
        routers.after_step(layers)
    stack.log.index_copy_(0, stack.counter, losses_R.detach().unsqueeze(0))
    stack.counter.add_(1)
