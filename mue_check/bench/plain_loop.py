"""torch.nn, torch.optim.AdamW and a scheduler, run after run: a sweep as it is usually written."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check.bench.plain import Norm, Plain, stored
from mue_check.bench.setup import CORPUS, Setup
from mue_check.data import load_corpus
from mue_check.precision import Precision
from mue_check.rules import Role
from mue_check.spec import TrainSpec

Roles = list[tuple[Tensor, Role]]
Optimizer = tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]


class PlainLoop:
    """One model after another. ``batched`` chooses the second form of a mixture (``plain``)."""

    def __init__(self, setup: Setup, runs: int, *, batched: bool) -> None:
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
        """What each step's loss was."""
        return torch.stack([torch.stack(losses) for losses in self.log], dim=1)


def plain_models(setup: Setup, runs: int, *, batched: bool, norm: Norm = nn.RMSNorm) -> list[tuple[Plain, Roles]]:
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


def make_optimizer(setup: Setup, parameters: Iterable[tuple[Tensor, Role]]) -> Optimizer:
    """One group for each set of values that the rule prescribes, and the schedule of every stack."""
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
    """The factor of each step: a linear rise, then a linear fall."""

    def factor(step: int) -> float:
        if step < train.warmup:
            return (step + 1) / (train.warmup + 1)
        return 1 - (1 - train.final_lr) * (step - train.warmup) / (train.steps - train.warmup)

    return factor


def casting(precision: Precision, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """What a forward pass runs under: bf16 is autocast, tf32 a setting (``training.products``)."""
    if precision == "bf16":
        return lambda: torch.autocast(device.type, torch.bfloat16)
    return nullcontext
