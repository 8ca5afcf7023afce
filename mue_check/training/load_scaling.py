"""A causal probe of sigma_0: scale each expert's update with its load, and see whether the optimum follows.

The update of an expert with share p of the load is multiplied by (p N)^(strength / 2). If its gradient noise falls as
n^-1/2, strength 1 gives it the sigma_0 = eta sigma_exp that it has under an even load.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mue_check.loads import Load
from mue_check.rules import Role
from mue_check.training.state import RunState

EXPERT_AXIS: Mapping[Role, int] = {Role.EXPERT_UP: 1, Role.EXPERT_GATE: 1, Role.EXPERT_DOWN: 0}
"""The axis of the experts in a parameter of that role, without the run axis."""


def update_factors(state: RunState, load: Load, strength: float) -> Tensor:
    """[R*P]: (p N)^(strength / 2) at the entries of each routed expert, 1 elsewhere."""
    factors = torch.ones_like(state.flat)
    by_expert = (torch.tensor(load, device=factors.device) * len(load)).pow(strength / 2)
    views = state.named(factors)
    for p in state.declared:
        if (axis := EXPERT_AXIS.get(p.role)) is not None:
            views[p.name].mul_(by_expert.view(-1, *[1] * (len(p.shape) - axis - 1)))
    return factors
