"""A correct set-up in parts (model, values of each parameter, optimizer, loss), so that one of them can be wrong."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check.audit.groups import init_parameters, param_groups
from mue_check.audit.roles import assign_roles
from mue_check.audit.scenario import scenario_of
from mue_check.mutants.setups.example import ExampleConfig, ExampleMixture
from mue_check.rules import HyperParameters, Prescription, Role, get_rule
from mue_check.spec_text import parse_scenario

REFERENCE = "d=32,L=1,H=32,dh=16,B=64,T=1000"
TARGET = "T=4000"
"""In addition to the model's configuration: four times the steps, so that every value has a factor other than 1."""
BASE = HyperParameters()
WARMUP = 10

SetUpParts = tuple[nn.Module, object, object, Callable[[], Tensor]]


def warm(step: int) -> float:
    """The factor of the schedule on every group: a linear warm-up."""
    return min(1.0, (step + 1) / WARMUP)


@dataclass(kw_only=True)
class Workbench:
    """The parts of a set-up before they are put together. ``values`` holds one group per parameter, by name."""

    model: ExampleMixture
    prescription: Prescription
    values: dict[str, dict[str, Any]]
    roles: Mapping[str, Role]
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] = torch.optim.AdamW
    schedule: Callable[[torch.optim.Optimizer], object] = lambda o: torch.optim.lr_scheduler.LambdaLR(o, warm)
    tokens: Tensor = field(default_factory=lambda: torch.zeros(1, 2, dtype=torch.long))

    @classmethod
    def right(cls, *, seed: int = 0, config: ExampleConfig | None = None) -> "Workbench":
        """Everything as ``complete_mue`` prescribes it, with the multipliers folded in."""
        config = config or ExampleConfig()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = ExampleMixture(config)
            source = parse_scenario(REFERENCE)
            own = scenario_of(model, batch=source.tokens_per_step, steps=source.steps)
            prescription = get_rule("complete_mue").prescribe(source, parse_scenario(TARGET, default=own))
            bench = cls(model=model, prescription=prescription, values={}, roles={})
            if not config.tied:
                bench.restart(model)
            bench.tokens = torch.randint(config.vocab_size, (8, 16))
        return bench

    def restart(self, model: ExampleMixture) -> None:
        """Take another model, draw it and write its values down."""
        init_parameters(model, self.prescription, BASE)
        self.model = model
        names = {id(p): name for name, p in model.named_parameters()}
        groups = param_groups(model, self.prescription, BASE)
        self.values = {names[id(p)]: {**g, "params": [p]} for g in groups for p in g["params"]}
        self.roles = {n: a.role for n, a in assign_roles(model).items() if a.role is not None}

    def of(self, *roles: Role) -> list[str]:
        """The names of the parameters with these roles."""
        return [name for name, role in self.roles.items() if role in roles]

    def set(self, roles: Iterable[Role], **values: object) -> None:
        """Give the parameters of these roles other values."""
        for name in self.of(*roles):
            self.values[name].update(values)

    def unfold(self, role: Role, by: float) -> None:
        """Take a multiplier out of everything that it was folded into."""
        for name in self.of(role):
            group = self.values[name]
            group.update(lr=group["lr"] / by, weight_decay=group["weight_decay"] * by, eps=group["eps"] * by)
        self.redraw(role, 1 / by)

    @torch.no_grad()
    def redraw(self, role: Role, by: float) -> None:
        """Multiply the initial values of a role."""
        for name in self.of(role):
            self.model.get_parameter(name).mul_(by)

    def multiplier(self, role: Role) -> float:
        """The multiplier that the rule prescribes for this role; for expert_down it is A/m_L without R."""
        return self.prescription[role].forward_multiplier

    def loss(self) -> Tensor:
        """Next-token cross-entropy on one fixed batch."""
        logits = self.model(self.tokens[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), self.tokens[:, 1:].flatten())

    def finish(self) -> SetUpParts:
        """What a factory returns."""
        optimizer = self.optimizer(list(self.values.values()))
        return self.model, optimizer, self.schedule(optimizer), self.loss
