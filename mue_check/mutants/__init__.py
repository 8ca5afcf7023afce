"""Broken variants of the reference, each with the check that must see it: what the suite's word is worth."""

from mue_check.errors import SpecError
from mue_check.mutants.mutant import Check, Mutant
from mue_check.mutants.rules import MUTANTS


def get_mutant(name: str) -> Mutant:
    """The mutant of that name; SpecError names the known ones."""
    for mutant in MUTANTS:
        if mutant.name == name:
            return mutant
    raise SpecError(f"unknown mutant {name!r}: allowed are {', '.join(m.name for m in MUTANTS)}")


__all__ = ["MUTANTS", "Check", "Mutant", "get_mutant"]
