"""How far the workers are, in one line on a terminal."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mue_check.suite.status_line import StatusLine

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

_SECONDS = 1.0


def is_wanted(config: pytest.Config) -> bool:
    """Whether somebody looks on: there are workers, a terminal that is no log of a CI, and no -q."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    quiet = config.get_verbosity() < 0 or os.environ.get("TERM") == "dumb"
    ci = any(os.environ.get(name) for name in ("CI", "BUILD_NUMBER"))
    has_workers = config.pluginmanager.has_plugin("dsession")
    return has_workers and terminal is not None and bool(terminal.isatty) and not quiet and not ci


class Progress:
    """Counts tests and cells, and says once a second how many there are and what each busy worker is at."""

    def __init__(self, config: pytest.Config, root: Path) -> None:
        self.config, self.cells = config, root / "cells"
        self.before = self._stored()
        self.began = time.monotonic()
        self.total = 0
        self.done: set[str] = set()
        self.busy: dict[str, str] = {}
        self.line: StatusLine | None = None
        self.teller = threading.Thread(target=self._tell, daemon=True)
        self.over = threading.Event()

    @property
    def text(self) -> str:
        """Tests, cells, time, and who is at what."""
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        at = "".join(f"  {worker} {test}" for worker, test in sorted(self.busy.copy().items()))
        return f"{len(self.done)}/{self.total} tests, {self._stored() - self.before} cells, {minutes}:{seconds:02}{at}"

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """The number of tests."""
        self.total = len(ids)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A worker is at a test when that is set up, until it is torn down."""
        worker = report.node.gateway.id
        if report.when == "setup":
            self.busy[worker] = report.nodeid.rpartition("::")[2].removeprefix("test_")
        elif report.when != "call" and str(report.outcome) != "rerun":  # torn down, or its worker died again
            self.busy.pop(worker, None)
            self.done.add(report.nodeid)
        if self.line is None:
            self.line = StatusLine(self.config.get_terminal_writer())
            self.teller.start()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerController) -> None:
        """A worker that died is at nothing."""
        self.busy.pop(node.gateway.id, None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Leave the terminal to the summary."""
        self.over.set()
        if self.line is not None:
            self.teller.join()
            self.line.close()

    def _tell(self) -> None:
        while self.line is not None:
            self.line.show(self.text)
            if self.over.wait(_SECONDS):
                break

    def _stored(self) -> int:
        return sum(1 for _ in self.cells.glob("*.json"))
