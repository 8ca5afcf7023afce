"""Axes: what is changed between a tuned reference and its targets, as ladders at a tier's sizes."""

from collections.abc import Callable, Mapping

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
from mue_check.axes.ladder import Ladder, Question, Regime, Rung
from mue_check.axes.scale import batch_ladders, depth_ladders, duration_ladders, width_ladders
from mue_check.axes.sizes import Sizes
from mue_check.errors import SpecError
from mue_check.sigma0.ladders import sigma0_ladders

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
    "sigma0": sigma0_ladders,
}
"""The nine axes of the rule; then the bridges that they are made of, the composite target, steps to a loss, and the
laboratory of what Bridge II leaves over."""


def parse_axes(text: str | None) -> tuple[str, ...]:
    """The axes named in a comma-separated list; all of them for None. SpecError names the allowed ones."""
    if text is None:
        return tuple(AXES)
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in AXES:
            raise SpecError(f"unknown axis {name!r}: allowed are {', '.join(AXES)}")
    return names


__all__ = ["AXES", "Ladder", "Question", "Regime", "Rung", "Sizes", "heldout_ladder", "parse_axes"]
