"""AdamW over the flat buffers, with a learning rate per run and factors per role.

torch.optim cannot do this: its learning-rate tensors have one element. The update is the same (decoupled decay,
arXiv 1711.05101; epsilon outside the corrected root), and a test compares the two.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mue_check.models.kernels import uses_kernel
from mue_check.rules import HyperParameters, Prescription, Role
from mue_check.spec import TrainSpec
from mue_check.training.adamw_kernel import BLOCK, adamw, blocks_of
from mue_check.training.state import RunState


def schedule_table(train: TrainSpec, beta1: float, beta2: float) -> Tensor:
    """[steps, 3] float32: learning-rate multiplier, 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t), computed in float64."""
    step = torch.arange(train.steps, dtype=torch.float64)
    rise = (step + 1) / (train.warmup + 1)
    fall = 1 - (1 - train.final_lr) * (step - train.warmup) / max(1, train.steps - train.warmup)
    bias1, bias2 = 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)
    return torch.stack([torch.where(step < train.warmup, rise, fall), 1 / bias1, bias2.rsqrt()], dim=1).float()


class AdamW:
    """One optimizer for R runs; ``restart`` gives it their learning rates.

    Where its kernel is used, a step is one pass over the state, with a small table of rates: one for each run of each
    parameter. ``by_element`` means that rates differ within a parameter (``restart`` with ``update``). Then, and
    without the kernel, rates are as long as the state, and torch's operations pass over it many times.
    """

    by_element = False

    def __init__(
        self,
        state: RunState,
        prescription: Prescription,
        base: HyperParameters,
        *,
        train: TrainSpec,
        by_element: bool = False,
    ) -> None:
        device = state.flat.device
        self.state, self.factors, self.base_eps = state, prescription.factors, base.eps
        first = prescription.values(base)[0]  # one pair of betas for all roles
        self.beta1, self.beta2 = first.beta1, first.beta2
        self.base_lr_R = torch.empty(state.runs, device=device)
        self.table = schedule_table(train, self.beta1, self.beta2).to(device)
        self.rates: Tensor | None = None
        if uses_kernel("adamw", state.flat) and not (by_element or self.by_element):
            lengths = [size // state.runs for size in state.sizes for _ in range(state.runs)]
            self.blocks = blocks_of(lengths, device)
            self.aligned = all(length % 4 == 0 for length in lengths)
            self.rates = torch.empty(3, len(lengths), device=device)
        else:
            self.lr, self.lr_times_decay = torch.empty_like(state.flat), torch.empty_like(state.flat)
            self._eps = self.eps

    @property
    def eps(self) -> Tensor:
        """[R*P]: that of each number."""
        return self.state.spread({role: self.base_eps * f.eps for role, f in self.factors.items()})

    def restart(
        self,
        lr: Tensor,
        weight_decay: Tensor,
        update: Tensor | None = None,
        *,
        lr_factors: Mapping[Role, Tensor] | None = None,
        decay_factors: Mapping[Role, Tensor] | None = None,
    ) -> None:
        """Take base values of each run [R], which the prescription scales by role; in place.

        ``update`` [R*P] scales every update, its decay included. ``lr_factors`` and ``decay_factors`` [R] scale those
        of some roles in each run.
        """
        self.base_lr_R.copy_(lr)
        lrs = {role: f.lr * (lr_factors or {}).get(role, 1.0) for role, f in self.factors.items()}
        decays = {role: f.weight_decay * (decay_factors or {}).get(role, 1.0) for role, f in self.factors.items()}
        if self.rates is not None:
            if update is not None:
                raise ValueError("an update that differs within a parameter needs by_element=True")
            self.rates.copy_(self._small_table(lr, weight_decay, lrs, decays))
            return
        spread = self.state.spread
        self.lr.copy_(spread(lrs, lr))
        decay = spread(decays, weight_decay)
        torch.mul(self.lr, decay, out=self.lr_times_decay)
        if update is not None:
            self.lr.mul_(update)
            self.lr_times_decay.mul_(update)

    def _small_table(
        self, lr_R: Tensor, decay_R: Tensor, lrs: Mapping[Role, float | Tensor], decays: Mapping[Role, float | Tensor]
    ) -> Tensor:
        """[3, parameters * R]: learning rate, the same times decay, and eps."""
        roles = [p.role for p in self.state.declared]
        lr = torch.cat([lr_R * lrs[role] for role in roles])
        decay = torch.cat([decay_R * decays[role] for role in roles])
        eps = torch.cat([torch.full_like(lr_R, self.base_eps * self.factors[role].eps) for role in roles])
        return torch.stack([lr, lr * decay, eps])

    @torch.no_grad()
    def step(self, counter: Tensor) -> None:
        """Update in place from the gradient buffer. ``counter`` [1] int64 on the device is the number of the step."""
        s = self.state
        if self.rates is not None:
            moments, tables = (s.first, s.second), (self.blocks, self.rates, self.table)
            adamw(s.flat, s.gradient, *moments, *tables, counter, self.beta1, self.beta2, self.aligned, BLOCK)
            return
        multiplier, bias1, bias2 = self.table.index_select(0, counter)[0].unbind()
        s.first.lerp_(s.gradient, 1 - self.beta1)
        s.second.mul_(self.beta2).addcmul_(s.gradient, s.gradient, value=1 - self.beta2)
        denominator = s.second.sqrt().mul_(bias2).add_(self._eps)
        s.flat.sub_(self.lr_times_decay.mul(multiplier).mul_(s.flat))
        s.flat.sub_(s.first.div(denominator).mul_(self.lr).mul_(multiplier * bias1))
