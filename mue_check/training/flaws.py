"""Deliberate mistakes of a training loop which no prescription can express, because they happen during training."""

import torch
from torch import Tensor

from mue_check.training.adamw import AdamW


class OverwrittenGroups(AdamW):
    """A scheduler that gives every group the base learning rate from the second step on (seen in gpt-neox)."""

    by_element = True

    @torch.no_grad()
    def step(self, counter: Tensor) -> None:
        """The first step as prescribed, then one learning rate for all."""
        own, decay = self.lr, self.lr_times_decay
        one_for_all = self.state.spread({p.role: 1.0 for p in self.state.declared}, self.base_lr_R)
        self.lr = torch.lerp(own, one_for_all, (counter > 0).to(own.dtype))
        self.lr_times_decay = decay * (self.lr / own)
        super().step(counter)
        self.lr, self.lr_times_decay = own, decay


FLAWS: dict[str, type[AdamW]] = {"": AdamW, "scheduler_overwrites_groups": OverwrittenGroups}
"""Optimizers by the name of their flaw; the empty name is the correct one."""
