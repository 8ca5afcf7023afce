"""Run checks in a child process: a candidate that hangs in C, exits or floods stdout affects one check only."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mue_check.conformance.result import TIMED_OUT, CheckResult
from mue_check.errors import ClaimError
from mue_check.isolation import ChildError, isolated

if TYPE_CHECKING:
    from mue_check.routing.factory import CandidateKind

_IMPORT_LIMIT = 120.0
_GRACE = 5.0
_AFTER_A_DEATH = 1.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to check: all checks of a kind or some, of one question or both; ``expected`` must be ids.

    ``shapes`` are (d, f, experts, activated, tokens), none for the usual ones; ``look``: describe the candidate first.
    """

    kind: "CandidateKind"
    name: str
    claim: str | None = None
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
    session, todo, started = Session(), dict[str, CheckResult](), False
    while todo or not started:
        try:
            with isolated(_Checker, job, limit=_IMPORT_LIMIT, doing=" while it is imported") as child:
                if not started:
                    session.device, head, todo = child.call("plan", limit=_IMPORT_LIMIT)
                    session.head, started = [head], True
                if job.look:
                    job = replace(job, look=False)
                    try:
                        session.head += child.call(
                            "look", limit=job.time_limit + _GRACE, doing=" while it is looked at"
                        )
                    except ChildError as error:
                        session.head.append(f"routing: {error}")
                        continue
                while todo:
                    try:
                        result = child.call("next", limit=job.time_limit + _GRACE, doing=" while it is checked")
                        died = False
                    except ChildError as error:
                        result, died = replace(next(iter(todo.values())), measured=str(error)), True
                    del todo[result.check]
                    if died or result.measured.startswith(TIMED_OUT):
                        job = replace(job, time_limit=min(job.time_limit, _AFTER_A_DEATH))
                    yield session, result
                    if died:
                        break
        except ChildError as error:
            raise ClaimError(f"{job.name}: {error}") from None
        job = replace(job, checks=tuple(todo), question=None)


class _Checker:
    """The job in the child."""

    def __init__(self, job: Job) -> None:
        import torch

        from mue_check.conformance.registry import checks_for
        from mue_check.conformance.runner import Options, run_checks
        from mue_check.routing.claim import read_claim
        from mue_check.routing.factory import Shape, load_candidate

        torch.set_num_threads(1)
        device = job.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
            raise ClaimError(f"--device {device}: must be cpu, cuda or auto")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ClaimError(f"--device {device}: there is no CUDA device")
        claim = read_claim(Path(job.claim)) if job.claim else None
        checks_for(job.kind, job.expected)  # an unknown id is an error
        self.checks = [c for c in checks_for(job.kind, job.checks) if job.question in (None, c.question)]
        if not self.checks:
            raise ClaimError(f"--only {job.question}: none of the checks asked for is about that")
        self.candidate = load_candidate(job.kind, job.name, claim)
        self.options = Options(
            shapes=tuple(Shape(*sizes) for sizes in job.shapes),
            seeds=job.seeds,
            device=device,
            time_limit=job.time_limit,
            rerun_flags=job.rerun_flags,
        )
        self.results = run_checks(self.candidate, self.checks, self.options)

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
        from mue_check.conformance.describe import describe
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

    def next(self) -> CheckResult:
        """The result of the next check."""
        return next(self.results)
