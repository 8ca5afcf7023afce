"""A sweep in plain torch: one run after another as it is usually written, or all runs under torch.func.vmap."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mue_check.bench.plain import ComposedRMSNorm, Norm, Plain, stored
from mue_check.bench.setup import CORPUS, BenchSetup
from mue_check.data import load_corpus
from mue_check.precision import Precision
from mue_check.rules import Role
from mue_check.spec import TrainSpec

Roles = list[tuple[Tensor, Role]]
Optimizer = tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]


class PlainLoop:
    """One model after another. ``batched`` chooses the second form of a mixture (``plain``)."""

    def __init__(self, setup: BenchSetup, runs: int, *, batched: bool) -> None:
        self.runs, self._done = runs, 0
        self.batches = setup.batches(range(runs))
        self.cast = casting(setup.case.precision, setup.device)
        models = plain_models(setup, runs, batched=batched)
        self.trained = [(model, *make_optimizer(setup, roles)) for model, roles in models]
        self.log: list[list[Tensor]] = [[] for _ in range(runs)]

    def advance(self, steps: int) -> None:
        """Train."""
        for run, (model, optimizer, scheduler) in enumerate(self.trained):
            for step in range(self._done, self._done + steps):
                batch = self.batches.of_run(step, run)
                optimizer.zero_grad()
                with self.cast():
                    loss = F.cross_entropy(model(batch[:, :-1]), batch[:, 1:].flatten())
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
                self.log[run].append(loss.detach())
        self._done += steps

    def losses(self) -> Tensor:
        """[steps, runs]: training loss."""
        return torch.stack([torch.stack(losses) for losses in self.log], dim=1)


def plain_models(setup: BenchSetup, runs: int, *, batched: bool, norm: Norm = nn.RMSNorm) -> list[tuple[Plain, Roles]]:
    """The model of each run with the weights that a stack draws for its seed, and the role of each parameter."""
    stack = setup.stack(range(runs))
    role = {p.name: p.role for p in stack.state.declared}
    models = []
    for run in range(runs):
        model = Plain(
            setup.case.spec,
            setup.prescription,
            vocab=load_corpus(CORPUS).vocab,
            context=setup.case.context,
            batched=batched,
            norm=norm,
        ).to(setup.device)
        weights = {name: value[run].detach() for name, value in stack.state.parameters.items()}
        roles: Roles = []
        with torch.no_grad():
            for parameter, name, value in stored(model, weights):
                parameter.copy_(value)
                roles.append((parameter, role[name]))
        models.append((model, roles))
    return models


def make_optimizer(setup: BenchSetup, parameters: Iterable[tuple[Tensor, Role]]) -> Optimizer:
    """A parameter group for each set of values that the rule prescribes, and the schedule that stacks use."""
    groups: defaultdict[tuple[float, float, float], list[Tensor]] = defaultdict(list)
    for parameter, role in parameters:
        row = setup.rows[role]
        groups[row.lr, row.weight_decay, row.eps].append(parameter)
    row = next(iter(setup.rows.values()))
    optimizer = torch.optim.AdamW(
        [
            {"params": members, "lr": lr, "weight_decay": decay, "eps": eps}
            for (lr, decay, eps), members in groups.items()
        ],
        betas=(row.beta1, row.beta2),
    )
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(setup.train))


def schedule(train: TrainSpec) -> Callable[[int], float]:
    """The learning rate's factor in each step: linear warmup, then linear decay."""

    def factor(step: int) -> float:
        if step < train.warmup:
            return (step + 1) / (train.warmup + 1)
        return 1 - (1 - train.final_lr) * (step - train.warmup) / (train.steps - train.warmup)

    return factor


def casting(precision: Precision, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """The context of a forward pass: autocast for bf16. tf32 is a global setting (``training.products``)."""
    if precision == "bf16":
        return lambda: torch.autocast(device.type, torch.bfloat16)
    return nullcontext


class Vmapped:
    """All runs as one call.

    torch.optim has no learning rate per run. Here all runs share one, which a real sweep could not do. A mixture takes
    its batched form, because the shapes of the other depend on data.
    """

    def __init__(self, setup: BenchSetup) -> None:
        self.runs, self._done = setup.case.runs, 0
        self.batches = setup.batches(range(self.runs))
        self.cast = casting(setup.case.precision, setup.device)
        models = plain_models(setup, self.runs, batched=True, norm=ComposedRMSNorm)
        template, roles = models[0]
        role = {id(parameter): role for parameter, role in roles}
        by_name = {name: role[id(parameter)] for name, parameter in template.named_parameters()}
        stacked, _ = torch.func.stack_module_state([model for model, _ in models])
        self.parameters: dict[str, Tensor] = {n: value.detach().requires_grad_() for n, value in stacked.items()}
        roles = [(parameter, by_name[name]) for name, parameter in self.parameters.items()]
        self.optimizer, self.scheduler = make_optimizer(setup, roles)

        def loss(parameters: dict[str, Tensor], batch: Tensor) -> Tensor:
            # vmap has no rule for the backward pass of fused attention and would call it once per run
            with sdpa_kernel(SDPBackend.MATH):
                logits = torch.func.functional_call(template, parameters, (batch[:, :-1],))
            return F.cross_entropy(logits, batch[:, 1:].flatten())

        self.gradients = torch.func.vmap(torch.func.grad_and_value(loss))
        self.log: list[Tensor] = []

    def advance(self, steps: int) -> None:
        """Train."""
        for step in range(self._done, self._done + steps):
            with self.cast():
                gradients, losses = self.gradients(self.parameters, self.batches.of(step))
            for name, parameter in self.parameters.items():
                parameter.grad = gradients[name]
            self.optimizer.step()
            self.scheduler.step()
            self.log.append(losses.detach())
        self._done += steps

    def losses(self) -> Tensor:
        """[steps, runs]: training loss."""
        return torch.stack(self.log)
