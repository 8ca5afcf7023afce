"""All checks, in the order in which they run."""

from collections.abc import Iterable

from mue_check.conformance.check import Check
from mue_check.conformance.checks import (
    auxiliary,
    basics,
    capacity,
    collapse,
    expert_gradients,
    expert_init,
    fit,
    gradient_split,
    gradients,
    groups,
    numerics,
    recomposition,
    selection,
    shared_part,
    symmetry,
    weights,
)
from mue_check.errors import ClaimError, unknown
from mue_check.routing.factory import CandidateKind

CHECKS = (
    *basics.CHECKS,
    *weights.CHECKS,
    *selection.CHECKS,
    *groups.CHECKS,
    *collapse.CHECKS,
    *gradients.CHECKS,
    *symmetry.CHECKS,
    *numerics.CHECKS,
    *capacity.CHECKS,
    *auxiliary.CHECKS,
    *fit.CHECKS,
    *recomposition.CHECKS,
    *shared_part.CHECKS,
    *expert_gradients.CHECKS,
    *gradient_split.CHECKS,
    *expert_init.CHECKS,
)


def checks_for(kind: CandidateKind, only: Iterable[str] = ()) -> list[Check]:
    """The checks for a kind of candidate, or those in ``only``; ClaimError for an unknown id."""
    known = {check.id: check for check in CHECKS if kind in check.candidates}
    wanted = set(only)
    for id in only:
        if id not in known:
            raise ClaimError(unknown(f"check of a {kind}", id, known))
    return [check for check in known.values() if not wanted or check.id in wanted]
