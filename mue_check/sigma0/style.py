"""Colors and markers of the laboratory's figures: one for each routing, and for each ladder that moves sigma_0."""

import math

from matplotlib.axes import Axes

from mue_check.judge.interval import Interval
from mue_check.report.format import in_words, routing_words
from mue_check.report.palette import MARKERS, TARGETS
from mue_check.sigma0.calibration import routing_of
from mue_check.sigma0.ladders import ACTIVATED, BATCHES, BLIND_LOADS, CAPACITIES, HELDOUT_LOADS, LOADS
from mue_check.spec import Experts

BLIND, LEARNED = "content-blind", "learned"
COLORS = {LEARNED: TARGETS[0], BLIND: TARGETS[1]}
"""By the name of the routing."""
_LADDERS = (LOADS, BLIND_LOADS, BATCHES, ACTIVATED, CAPACITIES)


def routing_name(experts: Experts) -> str:
    """Learned or content-blind."""
    return routing_words(routing_of(experts))


def ladder_look(ladder: str) -> tuple[str, str]:
    """(color, marker) of a ladder; loads have the color of their routing."""
    if ladder == HELDOUT_LOADS:
        return TARGETS[0], MARKERS[1]
    at = _LADDERS.index(ladder) if ladder in _LADDERS else len(_LADDERS)
    return TARGETS[at % len(TARGETS)], MARKERS[at % len(MARKERS)]


def short_ladder(ladder: str) -> str:
    """The name of a ladder without that of the axis."""
    return in_words(ladder.removeprefix("sigma0_"))


def cross(
    axes: Axes,
    at: tuple[float, float],
    color: str,
    *,
    x: Interval | None = None,
    y: Interval | None = None,
    marker: str = "o",
    solid: bool = True,
) -> None:
    """A marker with those error bars that are finite."""
    bars = [i.half_width if i and math.isfinite(i.half_width) else 0.0 for i in (x, y)]
    axes.errorbar(*at, xerr=bars[0], yerr=bars[1], color=color, capsize=2.5, linewidth=1.1, alpha=0.75)
    inside = color if solid else "white"
    axes.plot(*at, marker=marker, markersize=6, color=color, markerfacecolor=inside, zorder=4)
