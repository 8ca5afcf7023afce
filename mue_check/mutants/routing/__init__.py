"""Routers, blocks and losses written as people write them, right and broken: what a conformance check is worth."""

from mue_check.mutants.routing.broken import BUGS
from mue_check.mutants.routing.bug import Bug, Right
from mue_check.mutants.routing.misbehaving import MISBEHAVING, Misbehaving
from mue_check.mutants.routing.right import RIGHT

__all__ = ["BUGS", "MISBEHAVING", "RIGHT", "Bug", "Misbehaving", "Right"]
