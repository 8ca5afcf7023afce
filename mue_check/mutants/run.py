"""The one runner: each mutant goes through its checks, in this process or in several."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from mue_check.errors import SpecError, unknown
from mue_check.mutants import routing, rules
from mue_check.mutants.mutant import CheckOutcome, Mutant, MutantResult
from mue_check.mutants.setups import broken

Examine = Callable[[Mutant], tuple[CheckOutcome, ...]]
FAMILIES = {"rules": rules.MUTANTS, "routing": routing.MUTANTS, "setups": broken.MUTANTS}


def get_mutant(name: str, family: str = "rules") -> Mutant:
    """The mutant of that name; SpecError names the known ones."""
    for mutant in FAMILIES[family]:
        if mutant.name == name:
            return mutant
    raise SpecError(unknown("mutant", name, [mutant.name for mutant in FAMILIES[family]]))


def run(mutants: Sequence[Mutant], examine: Examine, *, workers: int = 1) -> Iterator[MutantResult]:
    """The results in order, as they come, from ``workers`` processes."""
    if workers == 1:
        yield from (MutantResult(mutant=mutant, outcomes=examine(mutant)) for mutant in mutants)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        places = [_place(mutant) for mutant in mutants]
        for mutant, outcomes in zip(mutants, pool.map(partial(_examine_at, examine), places), strict=True):
            yield MutantResult(mutant=mutant, outcomes=outcomes)


def _place(mutant: Mutant) -> tuple[str, int]:
    """Where a mutant is registered: it holds functions, and cannot be sent to another process."""
    return next((family, known.index(mutant)) for family, known in FAMILIES.items() if mutant in known)


def _examine_at(examine: Examine, place: tuple[str, int]) -> tuple[CheckOutcome, ...]:
    family, index = place
    return examine(FAMILIES[family][index])
