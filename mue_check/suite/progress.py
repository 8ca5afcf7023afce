"""What a run of the suites displays: each result as it is measured, and on a terminal a line with the progress."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import pytest

if TYPE_CHECKING:
    from _pytest._io import TerminalWriter
    from rich.console import RichCast
    from rich.live import Live
    from rich.text import Text
    from xdist.workermanage import WorkerController

VERDICT_STYLES = {"PASS": "green", "RESIDUAL": "cyan", "FAIL": "bold red", "INCONCLUSIVE": "yellow"}
"""In words that rich and pytest both know. Both leave colors out with NO_COLOR, and pytest in a pipe."""
_FORECAST = "mue_check.cost.forecast"
"""Run as a program: it imports torch and the suites, which this process is too busy for."""


class LiveResults:
    """Prints each result in place of pytest's dot, since the suites run for minutes. Not with -q or -v."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def results(self, report: pytest.TestReport | pytest.CollectReport) -> list[tuple[str, str]]:
        """The name of each result of a finished test, and the first line of its text."""
        if not isinstance(report, pytest.TestReport) or report.when != "call" or self.config.get_verbosity() != 0:
            return []
        return [(name, str(value).splitlines()[0]) for name, value in report.user_properties]

    def pytest_report_teststatus(self, report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
        """No dot for a test whose result is printed."""
        return ("passed", "", "") if report.passed and self.results(report) else None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print the results, with their verdicts in color."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None:
            return
        for name, text in self.results(report):
            verdict, sign, rest = text.partition(": ")
            terminal.ensure_newline()
            terminal.write(f"{name}: ")
            terminal.write(verdict, **dict.fromkeys(VERDICT_STYLES.get(verdict.split(" ")[0], "").split(), True))
            terminal.write_line(sign + rest)


def shows_progress(config: pytest.Config) -> bool:
    """Whether there is a terminal with somebody watching: not in CI, and not with -q or a debugger."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    quiet = config.get_verbosity() < 0 or config.option.usepdb or config.option.collectonly
    quiet = quiet or os.environ.get("TERM") == "dumb" or any(os.environ.get(name) for name in ("CI", "BUILD_NUMBER"))
    return terminal is not None and bool(terminal.isatty) and not quiet


class Forecast:
    """The cells of each test of a run and their cost, once another process has planned it. Empty if that fails."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.by_test: Mapping[str, tuple[int, float]] = {}
        command = [sys.executable, "-m", _FORECAST, *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        written, _ = self._process.communicate()
        if self._process.returncode == 0:
            self.by_test = json.loads(written)

    def stop(self) -> None:
        """Nobody waits for it any more."""
        self._process.terminate()


class Progress:
    """Displays how many tests and cells are done, the time left, the last verdict, and what each worker runs."""

    def __init__(self, config: pytest.Config, root: Path, forecast: Forecast) -> None:
        self.config, self.cells, self.forecast = config, root / "cells", forecast
        self.stored_before = self._stored()
        self.began = time.monotonic()
        self.total = 0
        self.done: set[str] = set()
        self.cells_of_done = 0
        self.running: dict[str, str] = {}
        self.last = ("", "")
        self.line: ProgressLine | None = None

    def __rich__(self) -> Text:
        from rich.text import Text

        cells = self._stored() - self.stored_before
        # a question that is answered early needs fewer cells than planned
        open_cells = sum(planned for test, (planned, _) in self.forecast.by_test.items() if test not in self.done)
        of = f"/{max(self.cells_of_done + open_cells, cells)}" if self.forecast.by_test else ""
        left = self.seconds_left(cells)
        time_left = "" if left is None else f", {_clock(left)} left"
        text = Text(no_wrap=True, overflow="crop")
        text.append(f"{len(self.done)}/{self.total} tests, {cells}{of} cells, {_clock(self._elapsed())}{time_left}")
        name, verdict = self.last
        if verdict:
            text.append("  ").append(verdict, style=VERDICT_STYLES.get(verdict, "")).append(f" {name}")
        for worker, test in sorted(self.running.copy().items()):
            name = test.rpartition("::")[2].removeprefix("test_")
            text.append(f"  {worker} {name}" if worker else f"  {name}")
        return text

    def seconds_left(self, cells: int) -> float | None:
        """The time so far, scaled by the planned cost of what is left; None before anything was measured.

        Cells beyond those of the tests that are done are a share of what runs.
        """
        plan = self.forecast.by_test
        running = [plan[test] for test in self.running.copy().values() if test in plan]
        share = min((cells - self.cells_of_done) / max(sum(planned for planned, _ in running), 1), 1.0)
        spent = sum(cost for test, (_, cost) in plan.items() if test in self.done)
        spent += share * sum(cost for _, cost in running)
        return self._elapsed() * (sum(cost for _, cost in plan.values()) - spent) / spent if spent else None

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Note the number of tests."""
        self.total = len(ids)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note the number of tests, where there are no workers."""
        self.total = self.total or len(session.items)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A worker runs a test from its set-up to its teardown."""
        worker = report.node.gateway.id if hasattr(report, "node") else ""
        if report.when == "setup":
            self.running[worker] = report.nodeid
        elif report.when == "call":
            for name, value in report.user_properties:
                if (verdict := str(value).partition(":")[0].split(" ")[0]) in VERDICT_STYLES:
                    self.last = (name, verdict)
        elif str(report.outcome) != "rerun":  # torn down, or its worker died a second time
            self.running.pop(worker, None)
            self.done.add(report.nodeid)
            self.cells_of_done = self._stored() - self.stored_before
        if self.line is None:
            self.line = ProgressLine(self.config.get_terminal_writer(), self)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerController) -> None:
        """A worker that died runs nothing."""
        self.running.pop(node.gateway.id, None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Remove the line before pytest prints its summary."""
        self.forecast.stop()
        if self.line is not None:
            self.line.close()

    def _elapsed(self) -> float:
        return time.monotonic() - self.began

    def _stored(self) -> int:
        return sum(1 for _ in self.cells.glob("*.json"))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class ProgressLine:
    """A line below everything that pytest writes, which rich draws again once a second.

    It takes the place of the terminal writer's file, and passes complete lines on as they are.
    """

    def __init__(self, writer: TerminalWriter, progress: RichCast) -> None:
        from rich.console import Console
        from rich.live import Live

        self._writer, self._stream = writer, writer._file
        self._rest = ""  # the beginning of a line that is not complete yet
        self._console = Console(file=_own(self._stream))
        self._live: Live = Live(
            console=self._console,
            get_renderable=lambda: progress,
            refresh_per_second=1,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        writer._file = cast(TextIO, self)
        writer.line()  # complete the line that pytest is in: rich draws below whole lines
        self._live.start(refresh=True)

    def write(self, text: str) -> int:
        """Write for pytest."""
        lines, newline, self._rest = (self._rest + text).rpartition("\n")
        if newline:
            self._console.out(lines, highlight=False)
        return len(text)

    def flush(self) -> None:
        """Nothing is flushed before its line is complete."""

    def close(self) -> None:
        """Remove the line, and give the terminal back to pytest."""
        self._live.stop()
        self._writer._file = self._stream
        self._stream.write(self._rest)
        self._stream.flush()


def _own(stream: TextIO) -> TextIO:
    """A stream to the same terminal that pytest does not capture while a test runs in this process."""
    try:
        return os.fdopen(os.dup(stream.fileno()), "w", encoding=stream.encoding, errors=stream.errors)
    except io.UnsupportedOperation:
        return stream
