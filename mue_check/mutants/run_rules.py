"""The mutation table: every shipped mutant put before every check, and whether the one that must see it does."""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from mue_check.errors import SpecError
from mue_check.judge.verdict import Verdict, join
from mue_check.mutants import Mutant, get_mutant
from mue_check.mutants.outcome import CHECKS, AnyCheck, MutantResult, Outcome
from mue_check.questions.drift import ask_drift
from mue_check.questions.scales import ask_coordinates
from mue_check.questions.study import Study
from mue_check.questions.values import audit_rung


def run_mutant(study: Study, mutant: Mutant, checks: Collection[AnyCheck] = CHECKS) -> MutantResult:
    """Put a mutant before ``checks`` on its ladder; one that does not exist there is left out.

    Batch and duration have no laws of scale, and a ladder that is there for its scales has no drift.
    """
    scales, drift = study.tier.ladder(mutant.ladder, "scales"), study.tier.ladder(mutant.ladder)
    ladder = drift or scales
    if ladder is None:
        raise SpecError(f"tier {study.tier.name} has no ladder {mutant.ladder!r} for mutant {mutant.name!r}")
    outcomes, named = [], not mutant.law
    if scales and "scales" in checks:
        results = ask_coordinates(study, scales, mutant, flaw=mutant.flaw).results
        failed = [result for result in results if result.verdict is Verdict.FAIL]
        naming = [result for result in failed if result.law.name == mutant.law]
        named = named or bool(naming)
        verdict = join(result.verdict for result in results)
        outcomes.append(Outcome(check="scales", verdict=verdict, says=str((naming or failed or results)[0])))
    if "audit" in checks:
        audit = audit_rung(study, ladder, ladder.targets[-1], mutant, flaw=mutant.flaw)
        outcomes.append(Outcome(check="audit", verdict=audit.verdict, says=str(audit)))
    if drift and "drift" in checks:
        found = ask_drift(study, drift, drift.targets[-1], mutate=mutant, flaw=mutant.flaw)
        outcomes.append(Outcome(check="drift", verdict=found.verdict, says=found.measured))
    return MutantResult(
        name=mutant.name,
        summary=mutant.summary,
        ladder=mutant.ladder,
        caught_by=mutant.caught_by,
        seen=mutant.seen,
        outcomes=tuple(outcomes),
        named=named,
    )


def run_mutants(
    study: Study, names: Sequence[str], checks: Collection[AnyCheck] = CHECKS, *, workers: int = 1
) -> Iterator[MutantResult]:
    """The rows of the table in order, as they come, from ``workers`` processes."""
    if workers == 1:
        yield from (_run_named(study, name, checks) for name in names)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(_run_named, study, checks=checks), names)


def _run_named(study: Study, name: str, checks: Collection[AnyCheck]) -> MutantResult:
    """By name, because a mutant is a function and does not travel between processes."""
    return run_mutant(study, get_mutant(name), checks)
