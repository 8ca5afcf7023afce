"""Axes: what can differ between a tuned reference and its targets. Each makes ladders from the sizes of a tier."""

from collections.abc import Callable, Mapping

from mue_check.axes.diffusion import diffusion_by_group
from mue_check.axes.experts import (
    activated_ladders,
    bridge_ladders,
    capacity_ladders,
    granularity_ladders,
    heldout_ladder,
    heldout_ladders,
    hybrid_ladders,
    shared_ladders,
    speed_ladders,
)
from mue_check.axes.ladder import BY_GROUP, Ladder, LadderUse, Regime, Rung
from mue_check.axes.scale import batch_ladders, depth_ladders, duration_ladders, width_ladders
from mue_check.axes.sizes import Sizes

AXES: Mapping[str, Callable[[Sizes], tuple[Ladder, ...]]] = {
    "width": width_ladders,
    "depth": depth_ladders,
    "batch": batch_ladders,
    "duration": duration_ladders,
    "activated_experts": activated_ladders,
    "capacity": capacity_ladders,
    "granularity": granularity_ladders,
    "shared_experts": shared_ladders,
    "routing_hybrids": hybrid_ladders,
    "bridges": bridge_ladders,
    "heldout": heldout_ladders,
    "speed": speed_ladders,
}
"""The nine axes of the rule, its two bridges, the composite target, and the speed of convergence."""

__all__ = [
    "AXES",
    "BY_GROUP",
    "Ladder",
    "LadderUse",
    "Regime",
    "Rung",
    "Sizes",
    "diffusion_by_group",
    "heldout_ladder",
]
