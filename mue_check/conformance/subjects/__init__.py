"""Routers, blocks and losses written as people write them, right and broken: what a conformance check is worth."""

from mue_check.conformance.subjects.broken import BUGS
from mue_check.conformance.subjects.bug import Bug, Right
from mue_check.conformance.subjects.misbehaving import MISBEHAVING, Misbehaving
from mue_check.conformance.subjects.right import RIGHT

__all__ = ["BUGS", "MISBEHAVING", "RIGHT", "Bug", "Misbehaving", "Right"]
