"""What a run of the suites displays: each result as it is measured, and on a terminal a line with the progress."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import pytest

if TYPE_CHECKING:
    from _pytest._io import TerminalWriter
    from rich.live import Live
    from rich.text import Text
    from xdist.workermanage import WorkerController


class LiveResults:
    """Prints each result in place of pytest's dot, since the suites run for minutes. Not with -q or -v."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def lines(self, report: pytest.TestReport | pytest.CollectReport) -> list[str]:
        """A line for each result of a finished test, with the first line of its text."""
        if not isinstance(report, pytest.TestReport) or report.when != "call" or self.config.get_verbosity() != 0:
            return []
        return [f"{name}: {str(value).splitlines()[0]}" for name, value in report.user_properties]

    def pytest_report_teststatus(self, report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
        """No dot for a test whose result is printed."""
        return ("passed", "", "") if report.passed and self.lines(report) else None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print the results."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None:
            return
        for line in self.lines(report):
            terminal.ensure_newline()
            terminal.write_line(line)


def shows_progress(config: pytest.Config) -> bool:
    """Whether there are workers and a terminal with somebody watching: not in CI, and not with -q."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    quiet = config.get_verbosity() < 0 or os.environ.get("TERM") == "dumb"
    ci = any(os.environ.get(name) for name in ("CI", "BUILD_NUMBER"))
    has_workers = config.pluginmanager.has_plugin("dsession")
    return has_workers and terminal is not None and bool(terminal.isatty) and not quiet and not ci


class Progress:
    """Counts tests and cells, and displays once a second how many are done and which test each worker runs."""

    def __init__(self, config: pytest.Config, root: Path) -> None:
        self.config, self.cells = config, root / "cells"
        self.stored_before = self._stored()
        self.began = time.monotonic()
        self.total = 0
        self.done: set[str] = set()
        self.running: dict[str, str] = {}
        self.line: ProgressLine | None = None

    def __str__(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        running = "".join(f"  {worker} {test}" for worker, test in sorted(self.running.copy().items()))
        cells = self._stored() - self.stored_before
        return f"{len(self.done)}/{self.total} tests, {cells} cells, {minutes}:{seconds:02}{running}"

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Note the number of tests."""
        self.total = len(ids)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A worker runs a test from its set-up to its teardown."""
        worker = report.node.gateway.id
        if report.when == "setup":
            self.running[worker] = report.nodeid.rpartition("::")[2].removeprefix("test_")
        elif report.when != "call" and str(report.outcome) != "rerun":  # torn down, or its worker died a second time
            self.running.pop(worker, None)
            self.done.add(report.nodeid)
        if self.line is None:
            self.line = ProgressLine(self.config.get_terminal_writer(), self)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerController) -> None:
        """A worker that died runs nothing."""
        self.running.pop(node.gateway.id, None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Remove the line before pytest prints its summary."""
        if self.line is not None:
            self.line.close()

    def _stored(self) -> int:
        return sum(1 for _ in self.cells.glob("*.json"))


class ProgressLine:
    """A line below everything that pytest writes, which rich draws again once a second from ``str(progress)``.

    It takes the place of the terminal writer's file, and passes complete lines on as they are.
    """

    def __init__(self, writer: TerminalWriter, progress: object) -> None:
        from rich.console import Console
        from rich.live import Live

        self._writer, self._stream, self._progress = writer, writer._file, progress
        self._rest = ""  # the beginning of a line that is not complete yet
        self._console = Console(file=self._stream)
        self._live: Live = Live(
            console=self._console,
            get_renderable=self._text,
            refresh_per_second=1,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        writer._file = cast(TextIO, self)
        writer.line()  # complete the line that pytest is in: rich draws below whole lines
        self._live.start(refresh=True)

    def _text(self) -> Text:
        from rich.text import Text

        return Text(str(self._progress), no_wrap=True, overflow="crop")

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
