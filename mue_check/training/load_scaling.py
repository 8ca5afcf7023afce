"""The causal probe of sigma_0: scale each expert's update with its load, and see whether the optimum follows.

An expert of share p takes (p N)^(strength / 2) of the step: at strength 1, were its noise to fall as n^-1/2, its
sigma_0 = eta sigma_exp would be that of an even load again.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mue_check.loads import Load
from mue_check.rules import Role
from mue_check.training.state import RunState

EXPERT_AXIS: Mapping[Role, int] = {Role.EXPERT_UP: 1, Role.EXPERT_GATE: 1, Role.EXPERT_DOWN: 0}
"""Where a parameter of that role has its experts, the run axis not counted."""


def update_factors(state: RunState, load: Load, strength: float) -> Tensor:
    """[R*P]: (p N)^(strength / 2) at the entries of each routed expert, 1 elsewhere."""
    factors = torch.ones_like(state.flat)
    by_expert = (torch.tensor(load, device=factors.device) * len(load)).pow(strength / 2)
    views = state.named(factors)
    for p in state.declared:
        if (axis := EXPERT_AXIS.get(p.role)) is not None:
            views[p.name].mul_(by_expert.view(-1, *[1] * (len(p.shape) - axis - 1)))
    return factors
