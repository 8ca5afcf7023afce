"""Routers, blocks and losses as people write them, right and broken: they test the checks of conformance.

``RIGHT`` are the right candidates, which every check must pass. ``MUTANTS`` are rows of the table of bugs in
conformance/pages/README.md, each a candidate with that one mistake. Rows 23 and 24 are mistakes of an optimizer, which
no router, block or loss can have: they are among the set-ups.
"""

from mue_check.mutants.mutant import mutants_of
from mue_check.mutants.routing import auxiliary, blocks, capacity, gates, selection

MUTANTS = mutants_of(gates, selection, auxiliary, capacity, blocks)
