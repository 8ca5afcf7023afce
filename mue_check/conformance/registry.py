"""Checks by id. A check looks at one case, a candidate at a shape and a seed, and says what it found."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mue_check.conformance.case import Case
from mue_check.conformance.result import Question, Severity
from mue_check.errors import ClaimError
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.factory import CandidateKind

Status = Literal["passed", "failed", "skipped", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found: ``measured`` in words with numbers, ``worst`` the token, expert or parameter."""

    status: Status
    measured: str
    worst: str = ""
    causes: tuple[int, ...] = ()


def passed(measured: str) -> Finding:
    """The law holds."""
    return Finding(status="passed", measured=measured)


def failed(measured: str, *, worst: str = "", causes: tuple[int, ...] = ()) -> Finding:
    """It does not; ``causes`` are likely rows of ``causes.CAUSES``."""
    return Finding(status="failed", measured=measured, worst=worst, causes=causes)


def skipped(reason: str) -> Finding:
    """The law says nothing about this candidate or shape."""
    return Finding(status="skipped", measured=reason)


def unknown(reason: str) -> Finding:
    """The law applies, and what it needs could not be found out."""
    return Finding(status="unknown", measured=reason)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One law. ``since`` is the version that added it; ``once`` asks it at the first shape alone.

    ``must_if`` names a field of RoutingSpec: who claims it turns a should into a must.
    """

    id: str
    law: str
    source: str
    run: Callable[[Case], Finding]
    severity: Severity = "must"
    question: Question = "claim"
    candidates: frozenset[CandidateKind] = frozenset({"router", "block"})
    since: str = "0.2"
    once: bool = False
    must_if: str = ""

    def severity_for(self, claim: RoutingSpec) -> Severity:
        """How severe a failure is under this claim."""
        return "must" if self.must_if and getattr(claim, self.must_if) else self.severity


_CHECKS: dict[str, Check] = {}


def check(
    id: str,
    *,
    law: str,
    source: str,
    severity: Severity = "must",
    question: Question = "claim",
    candidates: frozenset[CandidateKind] = frozenset({"router", "block"}),
    since: str = "0.2",
    once: bool = False,
    must_if: str = "",
) -> Callable[[Callable[[Case], Finding]], Callable[[Case], Finding]]:
    """Register a function of a Case as a check."""

    def register(run: Callable[[Case], Finding]) -> Callable[[Case], Finding]:
        if id in _CHECKS:
            raise ValueError(f"two checks are called {id!r}")
        _CHECKS[id] = Check(
            id=id,
            law=law,
            source=source,
            run=run,
            severity=severity,
            question=question,
            candidates=candidates,
            since=since,
            once=once,
            must_if=must_if,
        )
        return run

    return register


def all_checks() -> Mapping[str, Check]:
    """Every check by id, in the order in which they are asked."""
    from mue_check.conformance import checks  # noqa: F401  (importing it registers them)

    return _CHECKS


def checks_for(kind: CandidateKind, only: Iterable[str] = ()) -> list[Check]:
    """The checks of a kind of candidate, or those of ``only``; ClaimError on an id that is none."""
    known = {id: c for id, c in all_checks().items() if kind in c.candidates}
    wanted = list(only)
    for id in wanted:
        if id not in known:
            raise ClaimError(f"no check of a {kind} is called {id!r}: known are {', '.join(known)}")
    return [c for id, c in known.items() if not wanted or id in wanted]
