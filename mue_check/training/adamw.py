"""AdamW over the flat buffers, with a learning rate per run and factors per role.

torch.optim cannot serve: it takes one-element learning-rate tensors only. The update is its own
(decoupled decay, arXiv 1711.05101; epsilon outside the corrected root), and a test holds the two together.
"""

import torch
from torch import Tensor

from mue_check.rules import HyperParameters, Prescription, Role
from mue_check.spec import TrainSpec
from mue_check.training.state import RunState


def schedule_table(train: TrainSpec, beta1: float, beta2: float) -> Tensor:
    """[steps, 3] float32: learning-rate multiplier, 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t), computed in float64."""
    step = torch.arange(train.steps, dtype=torch.float64)
    rise = (step + 1) / (train.warmup + 1)
    fall = 1 - (1 - train.final_lr) * (step - train.warmup) / max(1, train.steps - train.warmup)
    bias1, bias2 = 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)
    return torch.stack([torch.where(step < train.warmup, rise, fall), 1 / bias1, bias2.rsqrt()], dim=1).float()


class AdamW:
    """One optimizer for R runs: ``lr`` [R] is each run's base learning rate, the prescription scales it by role.

    ``weight_decay`` [R] likewise, where the runs differ in it.
    """

    def __init__(
        self,
        state: RunState,
        prescription: Prescription,
        base: HyperParameters,
        *,
        lr: Tensor,
        weight_decay: Tensor | None = None,
        train: TrainSpec,
    ) -> None:
        rows = {Role(row.role): row for row in prescription.values(base)}
        self.state, self.base_lr_R = state, lr.to(state.flat.device)
        self.beta1, self.beta2 = next((row.beta1, row.beta2) for row in rows.values())
        # the base learning rate is each run's own, so the rows' value is taken relative to base.lr
        self.lr = state.spread({role: row.lr / base.lr for role, row in rows.items()}, lr)
        if weight_decay is None:
            weight_decay = torch.full_like(lr, base.weight_decay)
        decay = {role: prescription[role].weight_decay for role in rows}
        self.lr_times_decay = self.lr * state.spread(decay, weight_decay)
        self.eps = state.spread({role: row.eps for role, row in rows.items()})
        self.table = schedule_table(train, self.beta1, self.beta2).to(state.flat.device)

    def constants(self) -> list[Tensor]:
        """What a step reads and does not change."""
        return [self.base_lr_R, self.lr, self.lr_times_decay, self.eps, self.table]

    def scale(self, factors: Tensor) -> None:
        """Multiply every update, decay and all, by ``factors`` [R*P]."""
        self.lr, self.lr_times_decay = self.lr * factors, self.lr_times_decay * factors

    @torch.no_grad()
    def step(self, counter: Tensor) -> None:
        """Update in place from the gradient buffer; ``counter`` [1] int64 on the device says which step this is."""
        s = self.state
        multiplier, bias1, bias2 = self.table.index_select(0, counter)[0].unbind()
        s.first.lerp_(s.gradient, 1 - self.beta1)
        s.second.mul_(self.beta2).addcmul_(s.gradient, s.gradient, value=1 - self.beta2)
        denominator = s.second.sqrt().mul_(bias2).add_(self.eps)
        s.flat.sub_(self.lr_times_decay.mul(multiplier).mul_(s.flat))
        s.flat.sub_(s.first.div(denominator).mul_(self.lr).mul_(multiplier * bias1))
