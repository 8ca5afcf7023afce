"""A mutant: the rule with one mistake in it, on the ladder where the mistake shows, and the check that must see it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from mue_check.rules import Prescription

Check = Literal["scales", "audit"]
"""``scales``: the laws of activations and weights. ``audit``: the values that arrive at the optimizer."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """``mutate`` makes the mistake in a target's prescription, ``flaw`` names one in the training itself.

    ``seen`` says where it was met. ``law`` is the law that names it, for mutants that ``scales`` must catch.
    """

    name: str
    summary: str
    ladder: str
    caught_by: Check
    law: str = ""
    mutate: Callable[[Prescription], Prescription] = lambda p: p
    flaw: str = ""
    seen: str = ""

    def __call__(self, prescription: Prescription) -> Prescription:
        """The target's prescription with the mistake, under the mutant's name."""
        return replace(self.mutate(prescription), rule=self.name)
