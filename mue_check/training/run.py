"""A stack of runs in training: the step, its logs, and evaluation on the held-out part."""

import weakref
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mue_check.data import Corpus
from mue_check.models.balancing import (
    AUXILIARY_COEFFICIENT,
    LayerRouting,
    RoutingStatistics,
    auxiliary_loss,
    routing_statistics,
    update_selection_bias,
)
from mue_check.models.language_model import LanguageModel, Tap
from mue_check.models.parameters import stable_seed
from mue_check.precision import Precision, require_precision
from mue_check.rules import HyperParameters, Prescription, Role
from mue_check.spec import ModelSpec, TrainSpec
from mue_check.training.adamw import AdamW
from mue_check.training.capture import Stepper, capture, capture_if_possible, restore
from mue_check.training.compiling import compiled_if_asked
from mue_check.training.load_scaling import update_factors
from mue_check.training.products import set_products
from mue_check.training.state import RunState


def batch_starts(corpus: Corpus, train: TrainSpec, seed: int) -> Tensor:
    """[steps, B] int64: where each training sequence of this seed begins, the same for every model."""
    generator = torch.Generator().manual_seed(stable_seed(seed, "batches"))
    last = len(corpus.train) - train.context
    return torch.randint(0, last, (train.steps, train.batch), generator=generator)


class Stack:
    """R runs of one model on one corpus: run r has learning rate lrs[r] and seed seeds[r].

    ``weight_decays`` and ``init_stds`` give each run its own base value in place of ``base``'s. ``load_scaling`` is
    the strength of the causal probe (``training.load_scaling``). ``precision`` holds for this process's products from
    now on: train one stack after the other.

    A seed fixes init and data order, so runs of one seed differ in nothing but the learning rate, and
    arms with the same seeds see the same data.
    """

    def __init__(
        self,
        model: ModelSpec,
        prescription: Prescription,
        base: HyperParameters,
        train: TrainSpec,
        corpus: Corpus,
        *,
        lrs: Sequence[float],
        seeds: Sequence[int],
        device: torch.device,
        weight_decays: Sequence[float] | None = None,
        init_stds: Sequence[float] | None = None,
        optimizer: type[AdamW] = AdamW,
        load_scaling: float = 0.0,
        precision: Precision = "fp32",
    ) -> None:
        corpus.require_context(train.context)
        self.model = LanguageModel(model, prescription, vocab=corpus.vocab, context=train.context)
        self.base, self.train, self.corpus, self.device, self.runs = base, train, corpus, device, len(seeds)
        self.load_scaling = load_scaling
        if load_scaling and not (self.model.experts and self.model.experts.load):
            raise ValueError("load_scaling needs experts with a target load")
        init_std = {Role(row.role): row.init_std for row in prescription.values(base)}
        self.precision = require_precision(precision, device.type)
        set_products(precision, device)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.state = RunState(self.model.parameters, init_std=init_std, runs=self.runs, device=device, dtype=dtype)
        self.optimizer = optimizer(self.state, prescription, base, train=train)
        self.held = {} if self.model.router is None else self.model.router.buffers(seeds, device)
        """The buffers of a user's router."""
        self.tensors = {**self.state.leaves, **self.held, **self.model.tables(device)}
        """What a forward pass reads."""
        # a user's router is called as it is
        optional = compiled_if_asked if self.model.router is None else lambda function: function
        self.losses, self.update = optional(self.model.losses), optional(self.optimizer.step)
        self.selection_bias = self.model.zero_bias(self.runs, device)
        self.steering = self.model.steering(self.runs, device)
        self.tokens = torch.from_numpy(corpus.train.astype("int64")).to(device)
        self.heldout = torch.from_numpy(corpus.heldout_windows(train.context)).to(device)
        self.starts = torch.empty(train.steps, self.runs, train.batch, dtype=torch.int64, device=device)
        self.offsets = torch.arange(train.context + 1, device=device)
        self.counter = torch.empty(1, dtype=torch.int64, device=device)
        self.log = torch.empty(train.steps, self.runs, device=device)
        self.restart(lrs=lrs, seeds=seeds, weight_decays=weight_decays, init_stds=init_stds)

    @torch.no_grad()
    def restart(
        self,
        *,
        lrs: Sequence[float],
        seeds: Sequence[int],
        weight_decays: Sequence[float] | None = None,
        init_stds: Sequence[float] | None = None,
    ) -> "Stack":
        """Begin again with other runs, in the same memory: captured graphs stay valid."""
        for name, values in (("lrs", lrs), ("weight_decays", weight_decays), ("init_stds", init_stds)):
            if values is not None and len(values) != len(seeds):
                raise ValueError(f"{len(values)} {name} for {len(seeds)} seeds: one of each per run")
        if len(seeds) != self.runs:
            raise ValueError(f"{len(seeds)} seeds for a stack of {self.runs} runs")
        set_products(self.precision, self.device)
        self.state.restart(seeds)
        if init_stds is not None:
            self.state.scale_init(torch.tensor(init_stds) / self.base.init_std)
        update = None
        if self.load_scaling and self.model.experts:
            update = update_factors(self.state, self.model.experts.target_load, self.load_scaling)
        decays = weight_decays or [self.base.weight_decay] * self.runs
        self.optimizer.restart(torch.tensor(lrs), torch.tensor(decays), update)
        if self.model.router is not None:
            restore(list(self.held.values()), list(self.model.router.buffers(seeds, self.device).values()))
        for buffer in self._balancing():
            buffer.zero_()
        for seed in set(seeds):
            runs = [run for run, own in enumerate(seeds) if own == seed]
            self.starts[:, runs] = batch_starts(self.corpus, self.train, seed).to(self.device).unsqueeze(1)
        self.counter.zero_()
        self.log.fill_(float("nan"))
        return self

    def batch(self) -> Tensor:
        """[R, B, T+1] tokens of the current step, looked up by the device counter."""
        starts_RB = self.starts.index_select(0, self.counter)[0]
        return self.tokens[starts_RB.unsqueeze(-1) + self.offsets]

    @cached_property
    def stepper(self) -> Stepper:
        """The training step, captured whole where the device allows."""
        stack = weakref.proxy(self)  # a stack that held itself would keep its memory until the next collection

        def step() -> None:
            training_step(stack)

        router = self.model.router
        if router is None:
            return capture(step, self.buffers(), self.device)
        if self.device.type == "cuda" and router.capture_trouble:
            return Stepper(step)
        return capture_if_possible(step, self.buffers(), self.device, router.cannot_be_captured)

    def buffers(self) -> list[Tensor]:
        """Everything that a step changes in place."""
        moving = [] if self.model.router is None else [self.tensors[name] for name in self.model.router.moving]
        return [*self.state.buffers(), *self._balancing(), *moving, self.counter, self.log]

    def _balancing(self) -> list[Tensor]:
        bias = [] if self.selection_bias is None else [self.selection_bias]
        return bias if self.steering is None else [*bias, *self.steering.buffers()]

    def step(self) -> None:
        """Train for one more step."""
        self.stepper.advance(1)

    def advance(self, steps: int) -> None:
        """Train for ``steps`` more steps."""
        self.stepper.advance(steps)

    def _selection(self) -> dict[str, Any]:
        """What selection needs besides the weights, for a pass that leaves no trace."""
        steering = None if self.steering is None else self.steering.copy()
        return {"bias_LRE": self.selection_bias, "steering": steering}

    @torch.no_grad()
    def evaluate(self) -> Tensor:
        """[R] float64: mean cross-entropy on the held-out windows, in nats per token."""
        self.state.refresh()
        total = torch.zeros(self.runs, dtype=torch.float64, device=self.device)
        for window_BT in torch.split(self.heldout, self.train.batch):
            window_RBT = window_BT.expand(self.runs, -1, -1)
            losses = self.model.losses(self.tensors, window_RBT, **self._selection())
            total += losses.double() * len(window_BT)
        return total / len(self.heldout)

    @torch.no_grad()
    def probe(self, tokens_BT: Tensor, tap: Tap) -> None:
        """A forward pass on fixed tokens [B, T], the same for every run, showing each activation to ``tap``."""
        self.state.refresh()
        tokens_RBT = tokens_BT.expand(self.runs, -1, -1)
        self.model.logits(self.tensors, tokens_RBT, tap, **self._selection())

    @torch.no_grad()
    def routing(self, tokens_BT: Tensor) -> list[RoutingStatistics]:
        """How each layer routes fixed tokens [B, T], the same for every run; empty for a dense model."""
        self.state.refresh()
        layers: list[LayerRouting] = []
        tokens_RBT = tokens_BT.expand(self.runs, -1, -1)
        self.model.logits(self.tensors, tokens_RBT, layers=layers, **self._selection())
        return [routing_statistics(layer) for layer in layers]


def training_step(stack: Stack) -> None:
    """Forward, backward, AdamW and log, with no host sync and no Python value that varies between steps.

    The loss is a sum over runs, never a mean or a norm: the gradient of one run knows nothing of the others.
    The log holds the cross-entropy alone, whatever balances the load.
    """
    experts, bias = stack.model.experts, stack.selection_bias
    stack.state.refresh()
    layers: list[LayerRouting] = []
    adds = stack.model.router is not None and stack.model.router.has_auxiliary_loss
    watched = layers if experts and (experts.balance != "none" or adds) else None
    losses_R = stack.losses(stack.tensors, stack.batch(), bias_LRE=bias, steering=stack.steering, layers=watched)
    objective_R = losses_R
    if experts and experts.balance == "auxiliary_loss":
        objective_R = losses_R + AUXILIARY_COEFFICIENT * auxiliary_loss(layers, experts.router)
    for layer in layers:
        if layer.auxiliary_R is not None:
            objective_R = objective_R + layer.auxiliary_R
    stack.state.differentiate(objective_R.sum())
    stack.update(stack.counter)
    if bias is not None:
        update_selection_bias(bias, layers)
    stack.log.index_copy_(0, stack.counter, losses_R.detach().unsqueeze(0))
    stack.counter.add_(1)
