"""Does conformance catch what it must, and let pass what is right: every shipped mistake and every right twin."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mue_check.conformance.registry import checks_for
from mue_check.conformance.result import CheckResult, verdict_of
from mue_check.conformance.runner import TIME_LIMIT, Options, run_checks
from mue_check.judge.verdict import Verdict
from mue_check.mutants.routing.broken import BUGS
from mue_check.mutants.routing.bug import Bug, Right
from mue_check.mutants.routing.gates import MixtralRouter
from mue_check.mutants.routing.right import RIGHT
from mue_check.routing.factory import CandidateKind, candidate_of


@dataclass(frozen=True, kw_only=True)
class BugOutcome:
    """What became of one mistake: the result of the check that must catch it, and which others caught it too."""

    row: int
    name: str
    summary: str
    seen: str
    caught_by: str
    said: str
    caught: bool
    also: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RightOutcome:
    """What became of one right candidate: its verdicts, warnings, and checks that fail although it is right."""

    name: str
    kind: str
    claim: Verdict
    fit: Verdict
    fit_says: str
    warned: tuple[str, ...]
    false_alarms: tuple[str, ...]
    cases: int


def results_of(candidate: Right | Bug, options: Options) -> list[CheckResult]:
    """Every check of a shipped candidate; a loss is looked at beside a router that is right."""
    kind: CandidateKind = "block" if candidate.candidate == "block" else "router"
    factory = MixtralRouter if candidate.candidate == "auxiliary_loss" else candidate.factory
    asked = candidate_of(kind, factory, name=candidate.name, claim=candidate.claim)
    return list(run_checks(asked, checks_for(kind), options))


def run_bugs(bugs: Sequence[Bug] = BUGS) -> Iterator[BugOutcome]:
    """Each mistake before every check, at one seed."""
    for bug in bugs:
        results = {r.check: r for r in results_of(bug, Options(seeds=1))}
        naming = results[bug.caught_by]
        also = [r.check for r in results.values() if r.broken and r is not naming and r.severity == "must"]
        yield BugOutcome(
            row=bug.row,
            name=bug.name,
            summary=bug.summary,
            seen=bug.seen,
            caught_by=bug.caught_by,
            said=naming.measured,
            caught=naming.outcome == "failed" and naming.severity == "must",
            also=tuple(also),
        )


def run_right(seeds: int, candidates: Sequence[Right] = RIGHT) -> Iterator[RightOutcome]:
    """Each right candidate before every check, at every shape and so many seeds."""
    for candidate in candidates:
        # many seeds may take as many times longer
        results = results_of(candidate, Options(seeds=seeds, time_limit=TIME_LIMIT * seeds))
        claim = [r for r in results if r.question == "claim"]
        alarms = [r.check for r in claim if r.severity == "must" and (r.broken or r.outcome == "unknown")]
        yield RightOutcome(
            name=candidate.name,
            kind=candidate.candidate,
            claim=verdict_of(results, "claim"),
            fit=verdict_of(results, "fit"),
            fit_says=next(r.measured for r in results if r.check == "fit-scale"),
            warned=tuple(r.check for r in results if r.warning),
            false_alarms=tuple(alarms),
            cases=sum(r.cases for r in claim),
        )
