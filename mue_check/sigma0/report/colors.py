"""One colour and marker in all figures for learned and for content-blind routing, and for what moves sigma_0."""

from mue_check.report.format import in_words, routing_words
from mue_check.report.palette import MARKERS, TARGETS
from mue_check.sigma0.budget import routing_of
from mue_check.sigma0.ladders import BLIND_LOADS, HELDOUT_LOADS, LOADS
from mue_check.spec import Experts

BLIND = "content-blind"
LEARNED = "learned"
_ROUTINGS = {LEARNED: TARGETS[0], BLIND: TARGETS[1]}
_LADDERS = (LOADS, BLIND_LOADS, "sigma0_batch", "sigma0_activated", "sigma0_capacity")


def routing_name(experts: Experts) -> str:
    """As the calibration tells routings apart, in words."""
    return routing_words(routing_of(experts))


def colour_of(experts: Experts) -> str:
    """The colour of its routing."""
    return routing_colour(routing_name(experts))


def routing_colour(name: str) -> str:
    """The colour of a routing by its name."""
    return _ROUTINGS[name]


def ladder_look(ladder: str) -> tuple[str, str]:
    """(colour, marker) of a ladder; loads have the colour of their routing."""
    if ladder == HELDOUT_LOADS:
        return TARGETS[0], MARKERS[1]
    at = _LADDERS.index(ladder) if ladder in _LADDERS else len(_LADDERS)
    return TARGETS[at % len(TARGETS)], MARKERS[at % len(MARKERS)]


def ladder_name(ladder: str) -> str:
    """Its name without the axis', which all have."""
    return in_words(ladder.removeprefix("sigma0_"))
