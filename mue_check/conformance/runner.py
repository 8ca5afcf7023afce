"""The runner: every check over shapes and seeds, whatever the candidate does in the meantime."""

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

from mue_check.conformance.case import Case, Found
from mue_check.conformance.registry import Check, Finding
from mue_check.conformance.result import NO_ANSWER, Outcome, Result, cause_words
from mue_check.errors import ClaimError, UnreadableError, first_line
from mue_check.routing.factory import ONE_TOKEN, SHAPES, Candidate, Shape

TIME_LIMIT = 20.0
"""Seconds that one check may take over all its cases."""
AFTER_A_HANG = 1.0
"""What the other checks of a candidate that hangs are given."""


class TimeLimit(BaseException):
    """A check took too long. Not an Exception, so that a candidate's ``except Exception`` does not swallow it."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the checks are run."""

    shapes: tuple[Shape, ...] = ()
    """The user's own; without any, the usual ones."""
    seeds: int = 2
    device: str = "cpu"
    time_limit: float = TIME_LIMIT
    again: tuple[str, ...] = ()
    """Flags with which the command line asks again."""


def run_checks(candidate: Candidate, checks: Sequence[Check], options: Options) -> Iterator[Result]:
    """One result per check, as they come. Nothing that the candidate raises, prints or warns gets out."""
    found, limit = Found(), options.time_limit
    for check in checks:
        start = time.perf_counter()
        said, result = "", None
        try:
            with sheltered(), within(limit):
                result = _ask(check, candidate, options, found)
        except TimeLimit:
            said = f"{NO_ANSWER} {limit:g} s"
            limit = min(limit, AFTER_A_HANG)
        if result is None:
            result = blank(check, candidate, "error", Finding(status="failed", measured=said), options)
        yield _timed(result, time.perf_counter() - start)


def _ask(check: Check, candidate: Candidate, options: Options, found: Found) -> Result:
    shapes = candidate.shapes(options.shapes or (*SHAPES, ONE_TOKEN))
    cases = [
        Case(
            candidate=candidate,
            shape=shape,
            seed=seed,
            device=torch.device(options.device),
            chosen=bool(options.shapes),
            found=found,
        )
        for shape in (shapes[:1] if check.once else shapes)
        for seed in range(options.seeds)
    ]
    seen = [(case, *_one(check, case)) for case in cases]
    broken = [(case, outcome, finding) for case, outcome, finding in seen if outcome in ("failed", "error")]
    if broken:
        case, outcome, finding = broken[0]
        where = f"{case.shape} seed={case.seed}"
        return blank(check, candidate, outcome, finding, options, where=where, cases=len(cases), broken=len(broken))
    passes = [(case, finding) for case, outcome, finding in seen if outcome == "passed"]
    # one seed that shows nothing is no open question where another has answered it at that shape
    answered = {case.shape for case, _ in passes}
    opened = [finding for case, outcome, finding in seen if outcome == "unknown" and case.shape not in answered]
    if opened:
        return blank(check, candidate, "unknown", opened[0], options, cases=len(cases))
    if passes:
        return blank(check, candidate, "passed", passes[0][1], options, cases=len(cases))
    return blank(check, candidate, "skipped", seen[0][2], options, cases=len(cases))


def _one(check: Check, case: Case) -> tuple[Outcome, Finding]:
    try:
        finding = check.run(case)
    except (TimeLimit, KeyboardInterrupt):
        raise
    except UnreadableError as error:
        return "unknown", Finding(status="unknown", measured=str(error))
    except ClaimError as error:
        return "error", Finding(status="failed", measured=str(error))
    except BaseException as error:  # the candidate's own code may raise anything
        return "error", Finding(
            status="failed", measured=f"raises {type(error).__name__}: {first_line(error)}{_line(error)}"
        )
    return finding.status, finding


_HERE = Path(__file__).parent
_OURS = (_HERE, _HERE / "checks", _HERE.parent / "routing")


def _line(error: BaseException) -> str:
    """The candidate's own line that raised, which is the last one outside of libraries."""
    where = ""
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "site-packages" not in name and Path(name).parent not in _OURS:
            where = f" ({name.rsplit('/', 1)[-1]}:{trace.tb_lineno})"
        trace = trace.tb_next
    return where


def blank(
    check: Check,
    candidate: Candidate,
    outcome: Outcome,
    finding: Finding,
    options: Options,
    *,
    where: str = "",
    cases: int = 0,
    broken: int = 0,
) -> Result:
    """The result of a check, from what one of its cases found."""
    return Result(
        check=check.id,
        candidate=candidate.name,
        question=check.question,
        severity=check.severity_for(candidate.claim),
        outcome=outcome,
        law=check.law,
        source=check.source,
        since=check.since,
        measured=finding.measured,
        worst=finding.worst,
        where=where,
        cases=cases,
        broken_at=broken,
        cause=cause_words(finding.causes) if outcome == "failed" else (),
        again=shlex.join(["mue_check", candidate.kind, candidate.name, "--check", check.id, *options.again])
        if ":" in candidate.name
        else "",
    )


def _timed(result: Result, seconds: float) -> Result:
    return replace(result, seconds=round(seconds, 3))


@contextlib.contextmanager
def sheltered() -> Iterator[None]:
    """Random states, printing and warnings stay inside."""
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
def within(seconds: float) -> Iterator[None]:
    """Raise TimeLimit after so many seconds; only the main thread can be interrupted, elsewhere there is no limit."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, stop)
    # again and again: a candidate may catch the first one
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
