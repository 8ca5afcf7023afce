"""Run checks over shapes and seeds, safely even if the candidate raises, prints or changes global state."""

import contextlib
import io
import random
import shlex
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import Check, CheckOutcome
from mue_check.conformance.known_bugs import likely_bugs
from mue_check.conformance.learned import Learned
from mue_check.conformance.result import TIMED_OUT, CheckResult
from mue_check.errors import ClaimError, UnreadableError, first_line
from mue_check.routing.factory import ONE_TOKEN, SHAPES, Candidate, Shape

TIME_LIMIT = 20.0
"""Seconds that one check may take over all its cases."""
AFTER_TIMEOUT = 1.0
"""Seconds for the other checks of a candidate after one timed out."""


class TimeLimit(BaseException):
    """A check took too long. Not an Exception, so a candidate's ``except Exception`` does not swallow it."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How checks run; ``shapes`` are the user's own, if any, ``rerun_flags`` into the command that repeats a check."""

    shapes: tuple[Shape, ...] = ()
    seeds: int = 2
    device: str = "cpu"
    time_limit: float = TIME_LIMIT
    rerun_flags: tuple[str, ...] = ()


def run_checks(candidate: Candidate, checks: Sequence[Check], options: Options) -> Iterator[CheckResult]:
    """Yield one result per check. Nothing that the candidate raises, prints or warns escapes."""
    learned, limit = Learned(), options.time_limit
    for check in checks:
        start = time.perf_counter()
        result = None
        message = f"{TIMED_OUT} {limit:g} s"
        try:
            with preserve_global_state(), time_limit(limit):
                result = _run_check(check, candidate, options, learned)
        except TimeLimit:
            limit = min(limit, AFTER_TIMEOUT)
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
    try:
        return check.run(case)
    except (TimeLimit, KeyboardInterrupt):
        raise
    except UnreadableError as error:
        return CheckOutcome(status="unknown", measured=str(error))
    except ClaimError as error:
        return CheckOutcome(status="error", measured=str(error))
    except BaseException as error:  # the candidate's own code may raise anything
        measured = f"raises {type(error).__name__}: {first_line(error)}{_own_line(error)}"
        return CheckOutcome(status="error", measured=measured)


_HERE = Path(__file__).parent
_OURS = (_HERE, _HERE / "checks", _HERE.parent / "routing")


def _own_line(error: BaseException) -> str:
    """The candidate's own line that raised: the last one outside of libraries."""
    where = ""
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "site-packages" not in name and Path(name).parent not in _OURS:
            where = f" ({name.rsplit('/', 1)[-1]}:{trace.tb_lineno})"
        trace = trace.tb_next
    return where


def result_of_case(check: Check, candidate: Candidate, outcome: CheckOutcome, options: Options) -> CheckResult:
    """The result of a check whose outcome at one case stands for all."""
    rerun = ["mue_check", candidate.kind, candidate.name, "--check", check.id, *options.rerun_flags]
    return CheckResult(
        check=check.id,
        candidate=candidate.name,
        question=check.question,
        severity=check.severity_for(candidate.claim),
        outcome=outcome.status,
        law=check.law,
        source=check.source,
        since=check.since,
        measured=outcome.measured,
        worst=outcome.worst,
        cause=likely_bugs(outcome.causes) if outcome.status == "failed" else (),
        again=shlex.join(rerun) if ":" in candidate.name else "",
    )


@contextlib.contextmanager
def preserve_global_state() -> Iterator[None]:
    """Keep random states and the default dtype; swallow prints and warnings."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  (the global one is what a candidate may touch)
    dtype = torch.get_default_dtype()
    quiet = contextlib.redirect_stdout(io.StringIO())
    try:
        with torch.random.fork_rng(), torch.enable_grad(), warnings.catch_warnings(), quiet:
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_default_dtype(dtype)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimit after ``seconds``; only the main thread can be interrupted, others have no limit."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, stop)
    # repeated, because a candidate may catch the first one
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
