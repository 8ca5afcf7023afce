"""The mistakes of the audit's mutants: each takes a right set-up's parts and gets one thing wrong."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mue_check.mutants.setups.example import ExampleMixture
from mue_check.mutants.setups.workbench import BASE, Made, Workbench, warm
from mue_check.rules import Role
from mue_check.rules.roles import HIDDEN


def hidden(value: str, kept: float) -> Callable[[Workbench], None]:
    """Hidden matrices keep one value."""
    return lambda b: b.set(HIDDEN, **{value: kept})


def unfolded(role: Role, by: Callable[[Workbench], float]) -> Callable[[Workbench], None]:
    """A multiplier is neither in the model nor in the values of a role."""
    return lambda b: b.unfold(role, by(b))


def expansion_multiplier(b: Workbench) -> float:
    """A = d / H_act."""
    return 1 / b.prescription.target.model.expansion


def a_in_init_alone(b: Workbench) -> None:
    """A in the initial values and not in the optimizer's."""
    b.unfold(Role.EXPERT_DOWN, expansion_multiplier(b))
    b.redraw(Role.EXPERT_DOWN, expansion_multiplier(b))


class _Overwriting(torch.optim.lr_scheduler.LambdaLR):
    """Gives every group the base rate, whatever it began with."""

    def get_lr(self) -> list[float | Tensor]:
        return [BASE.lr * warm(self.last_epoch)] * len(self.base_lrs)


class _OneRate(torch.optim.AdamW):
    """Steps every group at the first one's learning rate."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        own = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] = own[0]
        super().step(closure)
        for group, lr in zip(self.param_groups, own, strict=True):
            group["lr"] = lr


def overwritten(b: Workbench) -> None:
    """A scheduler that knows one learning rate."""
    b.schedule = lambda optimizer: _Overwriting(optimizer, warm)


def coupled(b: Workbench) -> None:
    """Adam in place of AdamW."""
    b.optimizer = torch.optim.Adam


def one_rate(b: Workbench) -> None:
    """A step that knows one learning rate."""
    b.optimizer = _OneRate


def experts_missed(b: Workbench) -> None:
    """Only parameters named .weight reach the optimizer."""
    b.values = {name: group for name, group in b.values.items() if name.endswith(".weight")}


def in_two_groups(b: Workbench) -> Made:
    """A router stands in two groups."""
    model, optimizer, scheduler, loss = b.finish()
    assert isinstance(optimizer, torch.optim.Optimizer)
    # torch refuses this when groups are added, so it comes about by editing them
    router = model.get_parameter(b.of(Role.ROUTER)[0])
    optimizer.param_groups[0]["params"].append(router)
    return model, optimizer, scheduler, loss


def built_before(b: Workbench) -> Made:
    """The optimizer holds the parameters of a model that is gone."""
    _, optimizer, scheduler, _ = b.finish()
    b.restart(ExampleMixture(b.model.config))
    return b.model, optimizer, scheduler, b.loss


def own_ratio(b: Workbench) -> None:
    """Experts at 1 / (h / d*) in place of 1 / rho_d."""
    ratio = b.model.config.moe_intermediate_size / b.prescription.target.model.width
    for name in b.of(Role.EXPERT_GATE, Role.EXPERT_DOWN):
        b.values[name]["lr"] /= ratio


def down_init_missing(b: Workbench) -> None:
    """Down-projections drawn without sqrt(H_act / d)."""
    b.redraw(Role.EXPERT_DOWN, b.prescription.target.model.expansion**-0.5)


def twice(b: Workbench) -> None:
    """Multipliers in the forward pass beside values that hold them."""
    b.model.multipliers.update({role: b.multiplier(Role(role)) for role in ("attention_out", "shared_down")})


def declared_alone(b: Workbench) -> None:
    """A multiplier that is said and not there."""
    b.unfold(Role.ATTENTION_OUT, b.multiplier(Role.ATTENTION_OUT))
    b.model.mue_check_multipliers = {"attention_out": b.multiplier(Role.ATTENTION_OUT)}  # type: ignore[assignment]


def tied(b: Workbench) -> Made:
    """One tensor for embedding and unembedding, all at the base rate."""
    optimizer = torch.optim.AdamW(b.model.parameters(), lr=BASE.lr)
    return b.model, optimizer, None, b.loss


def detached(b: Workbench) -> None:
    """Experts without a gradient."""
    for block in b.model.layers:
        block.mlp.experts.detached = True  # type: ignore[union-attr]


def routing_detached(b: Workbench) -> None:
    """Routing weights without a gradient."""
    for block in b.model.layers:
        block.routing_detached = True  # type: ignore[assignment]


def no_role(b: Workbench) -> None:
    """A parameter that nobody declared."""
    extra = torch.nn.Parameter(torch.ones(3))
    b.model.register_parameter("mix", extra)
    b.values["mix"] = {"params": [extra]}


@torch.no_grad()
def one_expert_odd(b: Workbench) -> None:
    """One expert three times as wide as the others."""
    b.model.get_parameter(b.of(Role.EXPERT_DOWN)[0])[3].mul_(3)
