"""The campaign ``hostile``: hostile user code under ``mue_check router``, ``block`` and ``audit``, and in the suites.

Each kind of ``hostile_code`` is built into a wrong candidate, which must not pass whatever the code does, and each
harmless one into a right candidate too, which must pass. Errors are lines, not tracebacks, and no command takes longer
than its limits allow. ``--only`` repeats some kinds.
"""

import argparse
import contextlib
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mue_check.cli import main
from mue_check.mutants.setups.workbench import REFERENCE, TARGET
from tests.reliability.hostile_code import KINDS, TRAINING, Kind
from tests.reliability.page import write_section

CANDIDATE = "tests.reliability.hostile_candidate"
Command = Literal["router", "block", "audit", "suite"]
COMMANDS: tuple[Command, ...] = ("router", "block", "audit")
FEW = ("--check=runs", "--check=weight-sum")
CHECK_LIMIT, IMPORT_LIMIT = 3.0, 20.0
"""Seconds for a check, and to import or to audit."""
LONGEST = 120.0
"""Seconds for a command: every limit that it can run into, one after another."""
SUITE_KINDS = ("exit_0", "end_process", "pytest_exit", "pytest_skip", "replace_pytest")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one command said to one kind of code."""

    kind: Kind
    command: Command
    right: bool
    code: int
    seconds: float
    text: str

    @property
    def problem(self) -> str:
        """What is wrong with it; "" if nothing is."""
        if "Traceback (most recent call last)" in self.text:
            return "a traceback"
        if self.seconds > LONGEST:
            return "a hang"
        if not self.right and self.code == 0:
            return "a false pass"
        if self.right and self.code != 0:
            return "a false alarm"
        if self.code not in (0, 1, 2, 3, 4):
            return f"exit code {self.code}"
        if self.code == 2 and len(self.text.strip().splitlines()) != 1:
            return "an error of several lines"
        return ""

    def __str__(self) -> str:
        which = "right" if self.right else "wrong"
        end = self.text.strip().splitlines()[-1:] or [""]
        return (
            f"{self.problem or 'ok':14} {self.kind.name:28} {self.command:7} {which} exit {self.code} "
            f"{self.seconds:5.1f} s  {end[0][:100]}"
        )


def cases(kinds: Iterable[Kind], commands: Iterable[Command]) -> Iterator[tuple[Kind, Command, bool]]:
    """Kind, command, and whether the candidate is right."""
    commands = tuple(commands)
    for kind in kinds:
        for command in commands:
            if kind.place in TRAINING and command != "audit":
                continue
            if kind.place in ("claim", "delete") and command == "audit":
                continue
            yield kind, command, False
            if kind.harmless and not (kind.place == "forward" and kind.what == "seeds" and command == "audit"):
                yield kind, command, True


def attempt(kind: Kind, command: Command, right: bool, *, few: bool = False) -> Outcome:
    """Run one command on one candidate in this process; the code itself runs in a child of it."""
    os.environ["HOSTILE"] = f"{kind.name}:{'right' if right else 'wrong'}"
    if command == "audit":
        what = ["audit", f"{CANDIDATE}:build", "--reference", REFERENCE, "--target", TARGET, "--quiet"]
        what += ["--time-limit", str(IMPORT_LIMIT)]
    else:
        what = [command, f"{CANDIDATE}:{command.title()}", "--seeds=1", f"--time-limit={CHECK_LIMIT}", "--quiet"]
        what += FEW if few or kind.slow else ()
    out, began = io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = main(what)
        except SystemExit as stop:
            code = int(str(stop.code))
    seconds = time.monotonic() - began
    return Outcome(kind=kind, command=command, right=right, code=code, seconds=seconds, text=out.getvalue())


def attempt_suite(kind: Kind, study: Path) -> Outcome:
    """Run the suite of conformance on a wrong router, in a pytest of its own."""
    environment = {**os.environ, "HOSTILE": f"{kind.name}:wrong", "PYTHONPATH": str(Path(__file__).parents[2])}
    what = [sys.executable, "-m", "pytest", "suites/test_router.py", f"--router={CANDIDATE}:Router", "-q"]
    began = time.monotonic()
    run = subprocess.run(
        [*what, f"--study={study}", "-p", "no:cacheprovider"],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds, text = time.monotonic() - began, run.stdout + run.stderr
    return Outcome(kind=kind, command="suite", right=False, code=run.returncode, seconds=seconds, text=text)


def summary(outcomes: list[Outcome]) -> str:
    """The section of the page."""
    lines = [
        f"{len({o.kind.name for o in outcomes})} kinds of hostile code, {len(outcomes)} commands: "
        f"{sum(o.problem == 'a false pass' for o in outcomes)} false passes, "
        f"{sum(o.problem == 'a traceback' for o in outcomes)} tracebacks, "
        f"{sum(o.problem == 'a hang' for o in outcomes)} hangs, "
        f"{sum(o.problem == 'a false alarm' for o in outcomes)} false alarms on a right candidate with harmless code, "
        f"{sum(bool(o.problem) for o in outcomes)} problems in all.",
        "",
        "| command | candidate | runs | exit codes | longest |",
        "|---|---|---|---|---|",
    ]
    for command in (*COMMANDS, "suite"):
        for right in (False, True):
            some = [o for o in outcomes if o.command == command and o.right == right]
            if some:
                codes = {code: sum(o.code == code for o in some) for code in sorted({o.code for o in some})}
                told = ", ".join(f"{code}: {count}" for code, count in codes.items())
                which = "right, harmless code" if right else "wrong"
                lines.append(f"| {command} | {which} | {len(some)} | {told} | {max(o.seconds for o in some):.0f} s |")
    lines += ["", *(f"* {re.sub(' +', ' ', str(o))}" for o in outcomes if o.problem)]
    return "\n".join(lines)


def run() -> int:
    """The campaign; exit code 1 with any problem."""
    from mue_check.conformance import isolate

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="kinds, by a regular expression of their names")
    parser.add_argument("--commands", default=",".join((*COMMANDS, "suite")))
    options = parser.parse_args()
    isolate._IMPORT_LIMIT = IMPORT_LIMIT
    kinds = [kind for kind in KINDS.values() if re.search(options.only, kind.name)]
    asked = [command for command in COMMANDS if command in options.commands]
    outcomes = []
    for case in cases(kinds, asked):
        outcomes.append(attempt(*case))
        print(outcomes[-1], flush=True)
    for kind in kinds if "suite" in options.commands else []:
        if kind.what in SUITE_KINDS and kind.place in ("import", "forward"):
            outcomes.append(attempt_suite(kind, Path("reports/hostile")))
            print(outcomes[-1], flush=True)
    text = summary(outcomes)
    print(text)
    if not options.only:
        write_section("Hostile user code", "python -m tests.reliability.hostile", text)
    return int(any(outcome.problem for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(run())
