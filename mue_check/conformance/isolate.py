"""Run checks in a child process: a candidate that hangs in C, exits or floods stdout spoils one check only."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from mue_check.conformance.result import TIMED_OUT
from mue_check.errors import ClaimError

_IMPORT_LIMIT = 120.0
_GRACE = 5.0
_AFTER_A_DEATH = 1.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the child is to do: all checks of a kind or some, of one question or both; ``expected`` must be ids.

    ``shapes`` are (d, f, experts, activated, tokens), none for the usual ones; ``look``: describe the candidate first.
    """

    kind: str
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
    again: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Session:
    """What came back: ``head`` lines about claim and candidate, results as plain values."""

    head: list[str] = field(default_factory=list)
    device: str = "cpu"
    results: list[dict[str, Any]] = field(default_factory=list)


def run_isolated(job: Job) -> Iterator[tuple[Session, dict[str, Any]]]:
    """Each result as it comes, beside the session so far; ClaimError where the candidate cannot even be loaded."""
    session, descriptions, todo = Session(), dict[str, Any](), list[str]()
    while not descriptions or todo:
        with _child(job) as (process, answer, errors):
            ready = answer(_IMPORT_LIMIT)
            if ready is None or "usage" in ready:
                died = _death(process, errors, "is being imported") if ready is None else ready["usage"]
                raise ClaimError(died if ready else f"{job.name}: {died}")
            if not descriptions:
                descriptions, todo = ready["checks"], list(ready["checks"])
                session.head, session.device = ready["head"], ready["device"]
            if job.look:
                seen = answer(job.time_limit + _GRACE)
                session.head += seen["head"] if seen else [f"routing: {_death(process, errors, 'is being looked at')}"]
                job = replace(job, look=False)
                if seen is None:
                    continue
            while todo:
                result = answer(job.time_limit + _GRACE)
                died = result is None
                if result is None:
                    said = _death(process, errors, "is being checked")
                    result = {**descriptions[todo[0]], "outcome": "error", "measured": said}
                todo.remove(result["check"])
                if died or result["measured"].startswith(TIMED_OUT):
                    job = replace(job, time_limit=min(job.time_limit, _AFTER_A_DEATH))
                session.results.append(result)
                yield session, result
                if died:
                    break
        job = replace(job, checks=tuple(todo), question=None)


@contextlib.contextmanager
def _child(job: Job) -> Iterator[tuple["subprocess.Popen[bytes]", Any, IO[bytes]]]:
    read, write = os.pipe()
    with tempfile.TemporaryFile() as errors, open(read, "rb", buffering=0) as answers:
        command = [sys.executable, "-m", "mue_check.conformance.child", str(write), json.dumps(asdict(job))]
        package = str(Path(__file__).parents[2])
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        }
        process = subprocess.Popen(
            command, pass_fds=[write], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=env
        )
        os.close(write)
        pending = bytearray()

        def line(seconds: float) -> dict[str, Any] | None:
            """The next answer; None when the child has died or said nothing for so long."""
            with selectors.DefaultSelector() as selector:
                selector.register(answers, selectors.EVENT_READ)
                while b"\n" not in pending:
                    if not selector.select(seconds):
                        return None
                    chunk = answers.read(65536)
                    if not chunk:
                        process.wait()
                        return None
                    pending.extend(chunk)
            first, _, rest = bytes(pending).partition(b"\n")
            pending[:] = rest
            answer: dict[str, Any] = json.loads(first)
            return answer

        try:
            yield process, line, errors
        finally:
            process.kill()
            process.wait()


def _death(process: "subprocess.Popen[bytes]", errors: IO[bytes], doing: str) -> str:
    if process.poll() is None:
        return f"hangs while it {doing}, and was killed"
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip().splitlines()
    last = f": {said[-1][:160]}" if said else ""
    code = process.returncode
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"ends its process ({how}) while it {doing}{last}"
