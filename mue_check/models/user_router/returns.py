"""From what a user's router returned for R runs to a routing. Looks at shapes alone, never at values: nothing syncs.

The adapter (``conformance.adapter``) learned where each part lies; it reads one run, and checks what it reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mue_check.models.choice import AnyRouting, DenseRouting, ExpertChoice, Routing
from mue_check.routing.adapter import Path

Returned = Mapping[str, Tensor]
"""Part -> [R, ...]: weights, indices, combine, mask, logits, aux, as far as the router has them."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a router's parts become a routing. ``by_expert``: indices are tokens, [E, C].

    ``slots``: each row's indices were seen to be in range and all different, so that slots can be kept as they are;
    else they become a matrix, in which a dropped slot falls away and an index that comes twice counts twice.
    """

    by_expert: bool
    slots: bool

    def routing(self, found: Returned, tokens: int, experts: int, dtype: torch.dtype) -> AnyRouting:
        """The choice of all runs, its weights in the model's own type."""
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
            kind = ExpertChoice if self.by_expert else Routing
            # none was dropped when it was tried; an index out of range would end a CUDA process
            return kind(weights.masked_fill(dropped, 0), indices.masked_fill(dropped, 0))
        slots = indices.masked_fill(dropped, top)
        rows = weights.new_zeros(*weights.shape[:2], top + 1)
        matrix = rows.scatter_add(-1, slots, weights)[..., :top]
        met = rows.scatter(-1, slots, 1)[..., :top] > 0
        if self.by_expert:
            matrix, met = matrix.transpose(1, 2), met.transpose(1, 2)
        return DenseRouting(matrix, met)


def part_at(returned: object, path: Path) -> Tensor:
    """The tensor at a path of positions, keys and attributes; LookupError or AttributeError where there is none."""
    for key in path:
        returned = returned[key] if isinstance(returned, Mapping | tuple | list) else getattr(returned, str(key))  # type: ignore[index]
    if not isinstance(returned, Tensor):
        raise LookupError(f"no tensor at {'.'.join(map(str, path))}")
    return returned


def _columns(part: Tensor) -> Tensor:
    """[R, rows, K], also where a = 1 was squeezed away."""
    return part.unsqueeze(-1) if part.dim() == 2 else part


def _dense(found: Returned, dtype: torch.dtype) -> DenseRouting:
    weights, met = found["combine"].to(dtype), found.get("mask")
    if weights.dim() == 4:  # by capacity slot, [R, T, E, C]
        weights = weights.sum(-1)
    if met is None:
        met = weights != 0
    elif met.dim() == 4:
        met = met.any(-1)
    return DenseRouting(weights, met.bool())
