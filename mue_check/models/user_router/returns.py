"""From the return of a user's router for R runs to a choice. Reads shapes, never values, so nothing syncs.

The adapter (``routing.adapter``) has learned where each part lies; it reads one run, and checks the values.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mue_check.plain import plain
from mue_check.routing.adapter import Path
from mue_check.routing.canonical import from_expert_choice, from_token_choice
from mue_check.routing.choice import Choice, DenseChoice, ExpertChoice, TokenChoice

Returned = Mapping[str, Tensor]
"""[R, ...] by part: weights, indices, combine, mask, logits, aux, as far as the router has them."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a router's parts become a choice. ``by_expert``: indices are tokens, [E, C].

    ``slots``: each row's indices were in range and all different when it was tried, so slots can stay as they are.
    Otherwise they become a matrix, in which a dropped slot vanishes and a repeated index counts twice.
    """

    by_expert: bool
    slots: bool

    def choice(self, found: Returned, tokens: int, experts: int, dtype: torch.dtype) -> Choice:
        """The choice of all runs, with weights in the model's dtype."""
        if "combine" in found:
            return _dense(found, dtype)
        if "indices" not in found:  # a map of the one expert, and its weight
            return _dense({**found, "combine": found["mask"] * _columns(found["weights"])}, dtype)
        weights, indices = _columns(found["weights"]).to(dtype), _columns(found["indices"]).long()
        top = tokens if self.by_expert else experts
        dropped = (indices < 0) | (indices >= top)
        if weights.shape != indices.shape:  # scores over all experts, declared as the weights
            weights = weights.gather(-1, indices.masked_fill(dropped, 0))
        if self.slots:
            kind = ExpertChoice if self.by_expert else TokenChoice
            # none was dropped when it was tried; an index out of range would end a CUDA process
            return kind(weights.masked_fill(dropped, 0), indices.masked_fill(dropped, 0))
        read = from_expert_choice if self.by_expert else from_token_choice
        matrix, times = read(weights, indices.masked_fill(dropped, top), top)
        return DenseChoice(matrix, times > 0)


def part_at(returned: object, path: Path) -> Tensor:
    """The tensor at a path of positions, keys and attributes; LookupError or AttributeError where there is none."""
    for key in path:
        returned = returned[key] if isinstance(returned, Mapping | tuple | list) else getattr(returned, str(key))  # type: ignore[index]
    if not isinstance(returned, Tensor):
        raise LookupError(f"no tensor at {'.'.join(map(str, path))}")
    return plain(returned)


def _columns(part: Tensor) -> Tensor:
    """[R, rows, K], also where a = 1 was squeezed away."""
    return part.unsqueeze(-1) if part.dim() == 2 else part


def _dense(found: Returned, dtype: torch.dtype) -> DenseChoice:
    weights, met = found["combine"].to(dtype), found.get("mask")
    if weights.dim() == 4:  # by capacity slot, [R, T, E, C]
        weights = weights.sum(-1)
    if met is None:
        met = weights != 0
    elif met.dim() == 4:
        met = met.any(-1)
    return DenseChoice(weights, met.bool())
