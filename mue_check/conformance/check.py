"""A check: one law, tested on one case at a time, and the outcome of that."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.result import Question, Severity
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.factory import CandidateKind

ALL: frozenset[CandidateKind] = frozenset({"router", "block"})
ROUTERS: frozenset[CandidateKind] = frozenset({"router"})
BLOCKS: frozenset[CandidateKind] = frozenset({"block"})
Status = Literal["passed", "failed", "error", "skipped", "unknown"]


@dataclass(frozen=True, kw_only=True)
class CheckOutcome:
    """What a check found at one case.

    ``measured`` has the numbers as text, ``worst`` names the token, expert or parameter, and ``causes`` are rows of
    ``KNOWN_BUGS``. ``severity``: of this failure, if it is not the check's.
    """

    status: Status
    measured: str
    worst: str = ""
    causes: tuple[int, ...] = ()
    severity: Severity | None = None


def passed(measured: str) -> CheckOutcome:
    """The law holds."""
    return CheckOutcome(status="passed", measured=measured)


def failed(
    measured: str, *, worst: str = "", causes: tuple[int, ...] = (), severity: Severity | None = None
) -> CheckOutcome:
    """The law does not hold."""
    return CheckOutcome(status="failed", measured=measured, worst=worst, causes=causes, severity=severity)


def skipped(reason: str) -> CheckOutcome:
    """The law does not apply to this candidate or shape."""
    return CheckOutcome(status="skipped", measured=reason)


def unknown(reason: str) -> CheckOutcome:
    """The law applies, but something that the check needs could not be determined."""
    return CheckOutcome(status="unknown", measured=reason)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One law. Its id is the name of ``run``, its text the first paragraph of that function's docstring.

    ``since`` is the version that added it. ``once``: it runs at the first shape only. ``must_if`` is a field of
    RoutingSpec; claiming it turns a should into a must.
    """

    run: Callable[[ConformanceCase], CheckOutcome]
    source: str
    severity: Severity = "must"
    question: Question = "claim"
    candidates: frozenset[CandidateKind] = ALL
    since: str = "0.2"
    once: bool = False
    must_if: str = ""

    @property
    def id(self) -> str:
        """The name by which users select it."""
        return self.run.__name__.replace("_", "-")

    @property
    def law(self) -> str:
        """What must hold, as one sentence without its period."""
        law, _, _ = (inspect.getdoc(self.run) or "").partition("\n\n")
        return " ".join(law.split()).rstrip(".")

    def severity_for(self, claim: RoutingSpec) -> Severity:
        """How severe a failure is under this claim."""
        return "must" if self.must_if and getattr(claim, self.must_if) else self.severity
