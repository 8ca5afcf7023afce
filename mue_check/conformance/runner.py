"""Run checks over shapes and seeds, safely even if the candidate raises, prints or changes global state."""

import io
import shlex
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace

import torch

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import Check, CheckOutcome, unknown
from mue_check.conformance.checks.selection import unclaimed_groups
from mue_check.conformance.known_bugs import likely_bugs
from mue_check.conformance.learned import Learned
from mue_check.conformance.result import TIMED_OUT, CheckResult
from mue_check.errors import ClaimError, UnreadableError
from mue_check.global_state import Changes, preserved_globals
from mue_check.routing.factory import ONE_TOKEN, SHAPES, Candidate, Shape
from mue_check.user_code import TimeLimit, describe_error, one_line, time_limit

TIME_LIMIT = 20.0
"""Seconds that one check may take over all its cases."""
AFTER_TIMEOUT = 1.0
"""Seconds for the other checks of a candidate after one timed out."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How checks run; ``shapes`` are the user's own, if any, ``rerun_flags`` into the command that repeats a check."""

    shapes: tuple[Shape, ...] = ()
    seeds: int = 2
    device: str = "cpu"
    time_limit: float = TIME_LIMIT
    rerun_flags: tuple[str, ...] = ()


def run_checks(
    candidate: Candidate, checks: Sequence[Check], options: Options, learned: Learned | None = None
) -> Iterator[CheckResult]:
    """Yield one result per check. Nothing that the candidate raises, prints or warns escapes.

    ``learned`` is what earlier checks of this candidate have found out.
    """
    learned, limit = learned or Learned(), options.time_limit
    for check in checks:
        start = time.perf_counter()
        result = None
        message = f"{TIMED_OUT} {limit:g} s"
        changes = Changes()
        try:
            with preserved_globals() as changes, quietly(), time_limit(limit):
                result = _run_check(check, candidate, options, learned)
        except TimeLimit:
            limit = min(limit, AFTER_TIMEOUT)
        if changes.functions:  # then no comparison can be trusted
            result, message = None, f"replaces {', '.join(changes.functions)}"
        if result is None:
            result = result_of_case(check, candidate, CheckOutcome(status="error", measured=message), options)
        yield replace(result, seconds=round(time.perf_counter() - start, 3))


def _run_check(check: Check, candidate: Candidate, options: Options, learned: Learned) -> CheckResult:
    shapes = candidate.shapes(options.shapes or (*SHAPES, ONE_TOKEN))
    cases = [
        ConformanceCase(
            candidate=candidate,
            shape=shape,
            seed=seed,
            device=torch.device(options.device),
            chosen=bool(options.shapes),
            learned=learned,
        )
        for shape in (shapes[:1] if check.once else shapes)
        for seed in range(options.seeds)
    ]
    outcomes = [(case, _run_case(check, case)) for case in cases]
    broken = [(case, outcome) for case, outcome in outcomes if outcome.status in ("failed", "error")]
    if broken:
        case, outcome = broken[0]
        result = result_of_case(check, candidate, outcome, options)
        return replace(result, where=f"{case.shape} seed={case.seed}", cases=len(cases), broken_at=len(broken))
    # an unknown at one seed does not matter if another seed passed at that shape
    answered = {case.shape for case, outcome in outcomes if outcome.status == "passed"}
    unknown = [o for case, o in outcomes if o.status == "unknown" and case.shape not in answered]
    passes = [o for _, o in outcomes if o.status == "passed"]
    outcome = next(iter([*unknown, *passes]), outcomes[0][1])
    return replace(result_of_case(check, candidate, outcome, options), cases=len(cases))


def _run_case(check: Check, case: ConformanceCase) -> CheckOutcome:
    outcome = _outcome(check, case)
    if outcome.status in ("failed", "error") and not case.candidate.claims:
        reason = unclaimed_groups(case)
        return unknown(reason) if reason else outcome
    return outcome


def _outcome(check: Check, case: ConformanceCase) -> CheckOutcome:
    try:
        return check.run(case)
    except (TimeLimit, KeyboardInterrupt):
        raise
    except UnreadableError as error:
        return CheckOutcome(status="unknown", measured=one_line(str(error)))
    except ClaimError as error:
        return CheckOutcome(status="error", measured=one_line(str(error)))
    except BaseException as error:  # the candidate's own code may raise anything
        return CheckOutcome(status="error", measured=f"raises {describe_error(error)}")


def result_of_case(check: Check, candidate: Candidate, outcome: CheckOutcome, options: Options) -> CheckResult:
    """The result of a check whose outcome at one case stands for all."""
    rerun = ["mue_check", candidate.kind, candidate.name, "--check", check.id, *options.rerun_flags]
    return CheckResult(
        check=check.id,
        candidate=candidate.name,
        question=check.question,
        severity=outcome.severity or check.severity_for(candidate.claim),
        outcome=outcome.status,
        law=check.law,
        source=check.source,
        since=check.since,
        measured=outcome.measured,
        worst=outcome.worst,
        cause=likely_bugs(outcome.causes) if outcome.status == "failed" else (),
        again=shlex.join(rerun) if ":" in candidate.name else "",
    )


@contextmanager
def quietly() -> Iterator[None]:
    """Gradients on, and nothing that is printed or warned escapes."""
    with torch.enable_grad(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
