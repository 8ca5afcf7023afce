"""The campaign ``fuzz``: odd values in every option of every command and of pytest, and in every kind of input file.

Each case is drawn from a seed of its own, so that ``--first SEED --cases 1`` repeats it. Commands run in this process,
up to the point where they would train, time or call user code. A case fails if an exception escapes, if the exit code
is none of 0 to 3, if a usage error is not one line, or if it takes longer than it may.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from _pytest.config import get_config

from mue_check.cli import main
from mue_check.conformance.result import CheckResult
from mue_check.errors import TimingError
from mue_check.user_code import TimeLimit, time_limit
from tests.reliability.fuzz_values import Draw, command_case, pytest_case
from tests.reliability.page import write_section

FAR = "this is as far as it goes"
LONGEST = 20.0
"""Seconds for one case."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A case that went wrong."""

    seed: int
    what: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        shown = " ".join(repr(a if len(a) < 60 else f"{a[:40]}...({len(a)})") for a in self.arguments)
        return f"seed {self.seed}: {self.what}: {shown}"


def attempt(seed: int) -> tuple[str, Failure | None]:
    """Run one case: what it did, such as "router 2", and what went wrong, if anything did."""
    out, errors, began = io.StringIO(), io.StringIO(), time.monotonic()
    code, what = -1, ""
    with tempfile.TemporaryDirectory() as made:
        draw = Draw(seed, Path(made))
        Path(made, "suites").mkdir()
        of_pytest = draw.random.random() < 0.3
        arguments = pytest_case(draw) if of_pytest else command_case(draw)
        quiet = contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors)
        try:
            with _without_work(Path(made)), time_limit(LONGEST), quiet[0], quiet[1]:
                code = _settings(arguments) if of_pytest else _command(arguments)
        except TimeLimit:
            what = f"a hang of {time.monotonic() - began:.0f} s"
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)
            at = next((f for f in reversed(frames) if "/mue_check/" in f.filename), frames[-1])
            what = f"{type(error).__name__} ({Path(at.filename).name}:{at.lineno}): {str(error)[:100]!r}"
    lines = [line for line in errors.getvalue().splitlines() if line.strip()]
    if not what and code not in (0, 1, 2, 3):
        what = f"exit code {code}"
    elif not what and code == 2 and len(lines) != 1:
        what = f"exit 2 with {len(lines)} lines: {errors.getvalue()[:200]!r}"
    failure = Failure(seed=seed, what=what, arguments=tuple(arguments)) if what else None
    reached = "work" if FAR in errors.getvalue() else str(code)
    return f"{'pytest' if of_pytest else arguments[0]} {reached}", failure


@contextlib.contextmanager
def _without_work(folder: Path) -> Iterator[None]:
    """Commands stop where they would train, time or check."""

    @contextlib.contextmanager
    def here(make: Callable[..., Any], *arguments: object, **_: object) -> Iterator[Any]:
        made = make(*arguments)
        call = lambda method, *a, **_: getattr(made, method)(*a)  # noqa: E731
        yield SimpleNamespace(call=call, printed=str, kill=lambda: None)

    def unmeasured(self: Any, check: str, *_: object) -> CheckResult:
        result: CheckResult = self._results[check]
        return result

    def stop(*_: object, **__: object) -> Any:
        raise TimingError(FAR)

    work = ("mutants.run.run", "cost.timing.calibrate", "bench.run_bench", "audit.audit_model", "cost.dry_run.dry_run")
    patches: dict[str, Any] = {f"mue_check.{place}": stop for place in work}
    patches |= dict.fromkeys(("mue_check.isolation.isolated", "mue_check.conformance.isolate.isolated"), here)
    patches["mue_check.conformance.isolate.CandidateProcess.check"] = unmeasured
    patches["mue_check.routing.hugging_face.family_names"] = stop
    patches["os.execv"] = stop  # `mue_check suite` becomes pytest
    with contextlib.ExitStack() as stack:
        for place, instead in patches.items():
            stack.enter_context(mock.patch(place, instead))
        stack.enter_context(mock.patch("mue_check.conformance.isolate._Checker.look", return_value=[]))
        stack.enter_context(contextlib.chdir(folder))
        yield


def _command(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as stop:
        return int(str(stop.code))


def _settings(arguments: list[str]) -> int:
    """The exit code of pytest where its options are wrong, else 0."""
    from mue_check import pytest_plugin

    config = get_config([], [])
    try:
        config.pluginmanager.import_plugin("mue_check.pytest_plugin")
        config.parse([*arguments, "--rootdir=.", "-p", "no:cacheprovider", "--collect-only"])
        pytest_plugin.pytest_cmdline_main(config)
        pytest_plugin.activate(config)
    except pytest.UsageError as error:
        print(re.sub(r"^usage: .*\n", "", str(error)), file=sys.stderr)  # pytest's own errors begin with its usage
        return 2
    except SystemExit as stop:
        return int(str(stop.code))
    finally:
        config._ensure_unconfigure()
    return 0


def run() -> int:
    """The campaign; exit code 1 with any failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first case")
    options = parser.parse_args()
    began, failures, done = time.monotonic(), [], Counter[str]()
    for seed in range(options.first, options.first + options.cases):
        did, failure = attempt(seed)
        done[did] += 1
        if failure:
            failures.append(failure)
            print(failure, flush=True)
    names = sorted({did.rpartition(" ")[0] for did in done})
    lines = [
        f"{options.cases} cases from seed {options.first} in {time.monotonic() - began:.0f} s: "
        f"{len(failures)} failures, {sum('hang' in f.what for f in failures)} hangs.",
        "",
        "| command | exit 0 | exit 1 | exit 2 | exit 3 | stopped where the work begins |",
        "|---|---|---|---|---|---|",
        *(f"| {n} | " + " | ".join(str(done[f"{n} {end}"]) for end in (0, 1, 2, 3, "work")) + " |" for n in names),
        *(f"* {failure}" for failure in failures),
    ]
    print("\n".join(lines))
    if options.cases >= 1000:
        write_section(
            "Odd options and files", f"python -m tests.reliability.fuzz --cases {options.cases}", "\n".join(lines)
        )
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(run())
