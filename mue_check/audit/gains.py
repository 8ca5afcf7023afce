"""Where a norm's gain begins: at 1, or at 0 in a module that adds the 1 by itself (Gemma, Qwen3-Next)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mue_check.audit.assign import Assignment
from mue_check.audit.restore import preserved_model
from mue_check.rules import Role


def first_gains(model: nn.Module, assignments: Mapping[str, Assignment]) -> dict[str, float]:
    """Name -> what every entry of a gain should start at."""
    return {
        name: 0.0 if a.role is Role.NORM_GAIN and _adds_one(model, a) else 1.0
        for name, a in assignments.items()
        if a.role is Role.NORM_GAIN
    }


@torch.no_grad()
def _adds_one(model: nn.Module, a: Assignment) -> bool:
    """Whether the module still gives something with all its parameters at 0."""
    owner = model.get_submodule(a.name.rpartition(".")[0])
    held = [(p, p.data) for p in owner.parameters(recurse=False)]
    if any(p.is_meta for p, _ in held):
        return False
    gain = model.get_parameter(a.name)
    tokens = torch.linspace(-1, 1, 4 * gain.numel(), dtype=gain.dtype, device=gain.device).reshape(4, -1)
    try:
        for p, value in held:
            p.data = torch.zeros_like(value)
        with preserved_model(owner):
            made = owner(tokens)
    except Exception:  # the user's own code, which may want more than tokens
        return False
    finally:
        for p, value in held:
            p.data = value
    return isinstance(made, Tensor) and bool(made.any())
