"""The mutation table: every shipped mutant put before every check, and whether the one that must see it does."""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Literal

from mue_check.errors import SpecError
from mue_check.judge.verdict import Verdict
from mue_check.mutants import Check, Mutant, get_mutant
from mue_check.study.audit import audit_rung
from mue_check.study.drift import ask_drift
from mue_check.study.scales import ask_coordinates
from mue_check.study.setting import Study

AnyCheck = Literal["scales", "audit", "drift"]
CHECKS: tuple[AnyCheck, ...] = ("scales", "audit", "drift")
"""``drift`` is the learning-rate sweep: slow, and blind to much that the others see at once."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one check said of one mutant. ``says`` is its first finding."""

    check: AnyCheck
    verdict: Verdict
    says: str

    @property
    def caught(self) -> bool:
        """FAIL is the only verdict that catches."""
        return self.verdict is Verdict.FAIL


@dataclass(frozen=True, kw_only=True)
class MutantResult:
    """One row of the table: all checks that were put to a mutant.

    ``named``: the law that the mutant names is among those that failed (True where it names none).
    """

    name: str
    summary: str
    ladder: str
    caught_by: Check
    outcomes: tuple[Outcome, ...]
    named: bool

    @property
    def killed(self) -> bool:
        """The check that must see the mutant sees it, by the law that names it."""
        return self.named and any(o.caught for o in self.outcomes if o.check == self.caught_by)


def score(results: Sequence[MutantResult]) -> float:
    """Share of mutants that were killed by the check that names them."""
    return sum(result.killed for result in results) / len(results)


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
        results = ask_coordinates(study, scales, mutant, flaw=mutant.flaw).result
        failed = [result for result in results if result.verdict is Verdict.FAIL]
        naming = [result for result in failed if result.law.name == mutant.law]
        named = named or bool(naming)
        verdict = Verdict.FAIL if failed else Verdict.PASS
        outcomes.append(Outcome(check="scales", verdict=verdict, says=str((naming or failed or results)[0])))
    if "audit" in checks:
        audit = audit_rung(study, ladder, ladder.targets[-1], mutant, flaw=mutant.flaw)
        outcomes.append(Outcome(check="audit", verdict=audit.verdict, says=str(audit)))
    if drift and "drift" in checks:
        answer = ask_drift(study, drift, drift.targets[-1], mutate=mutant, flaw=mutant.flaw)
        outcomes.append(Outcome(check="drift", verdict=answer.result.verdict, says=answer.measured))
    return MutantResult(
        name=mutant.name,
        summary=mutant.summary,
        ladder=mutant.ladder,
        caught_by=mutant.caught_by,
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
