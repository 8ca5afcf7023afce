"""Run checks in a child process: a candidate that hangs in C, exits or floods stdout affects one check only."""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mue_check.conformance.result import TIMED_OUT, CheckResult
from mue_check.errors import ClaimError
from mue_check.isolation import Child, ChildError, isolated
from mue_check.routing.claim import RoutingSpec

if TYPE_CHECKING:
    from mue_check.routing.factory import CandidateKind

_IMPORT_LIMIT = 120.0
_GRACE = 5.0
_AFTER_A_DEATH = 1.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to check: all checks of a kind or some, of one question or both; ``expected`` must be ids.

    ``shapes`` are (d, f, experts, activated, tokens), none for the usual ones; ``look``: describe the candidate first;
    ``shown``: its name in results, if not ``name``.
    """

    kind: "CandidateKind"
    name: str
    shown: str = ""
    claim: RoutingSpec | None = None
    checks: tuple[str, ...] = ()
    question: str | None = None
    expected: tuple[str, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    seeds: int = 2
    device: str = "cpu"
    time_limit: float = 20.0
    look: bool = True
    rerun_flags: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Session:
    """What is known of the candidate so far: ``head`` lines about its claim and its routing, and the device."""

    head: list[str] = field(default_factory=list)
    device: str = "cpu"


def run_isolated(job: Job) -> Iterator[tuple[Session, CheckResult]]:
    """Each result as it comes, with the session so far; ClaimError where the candidate cannot even be loaded."""
    with closing(CandidateProcess(job)) as process:
        session = process.look() if job.look else process.session
        for check in process.results:
            yield session, process.check(check)


class CandidateProcess:
    """A candidate in a child process, which is started when it is needed, and again after it has died."""

    def __init__(self, job: Job) -> None:
        self.name, self.job, self.session = job.shown or job.name, job, Session()
        self._limit = job.time_limit
        self._held = ExitStack()
        self._child: Child | None = None
        self._results: dict[str, CheckResult] = {}

    @property
    def results(self) -> Mapping[str, CheckResult]:
        """By check, the result that it has if the process dies. ClaimError where the candidate cannot be loaded."""
        self._alive()
        return self._results

    def look(self) -> Session:
        """The session, with lines about the routing that was found."""
        try:
            found: list[str] = self._alive().call("look", limit=self._limit + _GRACE, doing=" while it is looked at")
        except ChildError as error:
            found = [f"routing: {error}"]
            self._died()
        self.session.head += found
        return self.session

    def check(self, check: str) -> CheckResult:
        """The result of one check, by its id."""
        child = self._alive()
        try:
            result: CheckResult = child.call(
                "check", check, self._limit, limit=self._limit + _GRACE, doing=" while it is checked"
            )
        except ChildError as error:
            result = replace(self._results[check], measured=str(error))
            self._died()
        if result.measured.startswith(TIMED_OUT):
            self._limit = min(self._limit, _AFTER_A_DEATH)
        return result

    def close(self) -> None:
        """End the process."""
        self._held.close()
        self._child = None

    def _alive(self) -> Child:
        if self._child is None:
            try:
                opened = isolated(_Checker, self.job, limit=_IMPORT_LIMIT, doing=" while it is imported")
                self._child = self._held.enter_context(opened)
                if not self._results:
                    limit = self._limit + _GRACE
                    self._child.call("first_look", limit=limit, doing=" in its factory or its first forward pass")
                    self.session.device, head, self._results = self._child.call("plan", limit=_IMPORT_LIMIT)
                    self.session.head = [head]
            except ChildError as error:
                self.close()
                raise ClaimError(f"{self.job.name}: {error}") from None
        return self._child

    def _died(self) -> None:
        self.close()
        self._limit = min(self._limit, _AFTER_A_DEATH)


class _Checker:
    """The job in the child."""

    def __init__(self, job: Job) -> None:
        import torch

        from mue_check.conformance.learned import Learned
        from mue_check.conformance.registry import checks_for
        from mue_check.conformance.runner import Options
        from mue_check.routing.factory import Shape, load_candidate

        torch.set_num_threads(1)
        device = job.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
            raise ClaimError(f"--device {device}: must be cpu, cuda or auto")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ClaimError(f"--device {device}: there is no CUDA device")
        checks_for(job.kind, job.expected)  # an unknown id is an error
        self.checks = [c for c in checks_for(job.kind, job.checks) if job.question in (None, c.question)]
        if not self.checks:
            raise ClaimError(f"--only {job.question}: none of the checks asked for is about that")
        candidate = load_candidate(job.kind, job.name, job.claim)
        self.candidate = replace(candidate, name=job.shown or candidate.name)
        self.options = Options(
            shapes=tuple(Shape(*sizes) for sizes in job.shapes),
            seeds=job.seeds,
            device=device,
            time_limit=job.time_limit,
            rerun_flags=job.rerun_flags,
        )
        self.learned = Learned()

    def first_look(self) -> None:
        """Build the candidate and call it once; ClaimError where that fails."""
        from mue_check.conformance.first_look import first_look

        try:
            first_look(self.candidate, self.options, self.learned)
        except ClaimError as error:
            raise ClaimError(f"{self.candidate.name}: {error}") from None

    def plan(self) -> tuple[str, str, dict[str, CheckResult]]:
        """The device, a line about the claim, and by check the result that it has if the process dies."""
        from mue_check.conformance.check import CheckOutcome
        from mue_check.conformance.runner import result_of_case

        died = CheckOutcome(status="error", measured="")
        results = {c.id: result_of_case(c, self.candidate, died, self.options) for c in self.checks}
        return self.options.device, f"claim:   {self.candidate.claim} ({self.candidate.claimed})", results

    def look(self) -> list[str]:
        """Lines about the routing that was found."""
        import torch

        from mue_check.conformance.case import ConformanceCase
        from mue_check.conformance.first_look import describe
        from mue_check.conformance.runner import quietly
        from mue_check.global_state import preserved_globals
        from mue_check.routing.factory import SHAPES
        from mue_check.user_code import time_limit

        shape = self.candidate.shapes(self.options.shapes or SHAPES)[0]
        case = ConformanceCase(candidate=self.candidate, shape=shape, seed=0, device=torch.device(self.options.device))
        try:
            with preserved_globals(), quietly(), time_limit(self.options.time_limit):
                return describe(case)
        except BaseException as error:  # a check will report it in detail
            return [f"routing: could not be looked at: {type(error).__name__}"]

    def check(self, id: str, limit: float) -> CheckResult:
        """The result of one check."""
        from mue_check.conformance.runner import run_checks

        checks = [check for check in self.checks if check.id == id]
        (result,) = run_checks(self.candidate, checks, replace(self.options, time_limit=limit), self.learned)
        return result
