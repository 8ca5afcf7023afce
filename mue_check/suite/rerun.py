"""A test whose worker died, or that ran out of memory, runs a second time. Other failures are final.

pytest-rerunfailures 16 repeats such tests too, but a run that lost all its workers then exits with 0 or 5, and it does
not release the stacks that this process keeps before the second attempt.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest
from _pytest.junitxml import xml_key

from mue_check.suite.workers import RERUNS_WITH

if TYPE_CHECKING:
    from xdist.scheduler.protocol import Scheduling
    from xdist.workermanage import WorkerController

MEMORY = "out of memory"
"""The property of a test that ran a second time because memory ran out."""


def register(config: pytest.Config) -> None:
    """Rerun tests of this process, and of its workers if it has any. Further calls do nothing."""
    if config.pluginmanager.has_plugin("mue_check-memory"):
        return
    config.pluginmanager.register(RerunOutOfMemory(), "mue_check-memory")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(RerunCrashed(config), "mue_check-rerun")


class RerunOutOfMemory:
    """Calls a test that ran out of memory once more, in the same process, after memory was released."""

    def __init__(self) -> None:
        self.rerun: set[str] = set()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Call the test, and call it again if memory ran out."""
        try:
            return (yield)
        except Exception as error:
            if pyfuncitem.nodeid in self.rerun or not _is_out_of_memory(error):
                raise
            message = str(error).partition("\n")[0]
            # frames of the error, and of the errors that it was raised from, still hold tensors
            cause: BaseException | None = error
            while cause is not None:
                traceback.clear_frames(cause.__traceback__)
                cause = cause.__context__
        self.rerun.add(pyfuncitem.nodeid)
        from mue_check.measure.stacks import stacks

        stacks().forget()
        pyfuncitem.user_properties.append((MEMORY, f"run again after: {message}"))
        return pyfuncitem.ihook.pytest_pyfunc_call(pyfuncitem=pyfuncitem)


class RerunCrashed:
    """Puts the test of a crashed worker back into the queue once, and reports reruns.

    A run fails if tests never ran or never ended: workers died, or ``pytest.exit`` ended the run with exit code 0.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.reasons: dict[str, str] = {}
        self.died: list[str] = []
        self.finished: set[str] = set()
        self.missing = 0
        self.unfinished = False

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport, sched: Scheduling) -> None:
        """Queue the test again after its first crash. Its second crash is a failure."""
        if crashitem in self.reasons or self.config.option.dist not in RERUNS_WITH:
            self.finished.add(crashitem)
            return
        self.reasons[crashitem] = f"its worker {report.node.gateway.id} died"
        sched.mark_test_pending(crashitem)
        report.outcome = "rerun"  # type: ignore[assignment]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerController, error: object | None) -> None:
        """Note workers that died."""
        if error is not None:
            self.died.append(node.gateway.id)

    def pytest_report_teststatus(
        self, report: pytest.TestReport | pytest.CollectReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """Display a rerun as R, not as a failure."""
        return ("rerun", "R", ("RERUN", {"yellow": True})) if str(report.outcome) == "rerun" else None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note reruns for lack of memory, and drop the first attempt of a rerun test from the JUnit report."""
        if str(report.outcome) == "rerun" and (xml := self.config.stash.get(xml_key, None)):
            xml.node_reporters_ordered.remove(xml.node_reporter(report))
        for name, value in report.user_properties:
            if name == MEMORY:
                self.reasons.setdefault(report.nodeid, f"{name}: {value}")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Note tests that finished."""
        self.finished.add(nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run if tests that were collected did not end."""
        self.missing = 0 if self.config.option.collectonly else session.testscollected - len(self.finished)
        no_test = self.died and not session.testscollected
        if (self.missing or no_test) and session.exitstatus in (0, 5):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            self.unfinished = True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List what ran again, and say what never ran."""
        if self.unfinished and not self.died:
            terminalreporter.line(f"{self.missing} tests did not end: exit code 1")
        if not self.reasons and not self.died:
            return
        terminalreporter.section("run again")
        for test, reason in self.reasons.items():
            terminalreporter.line(f"{test}: {reason}")
        if self.died:
            terminalreporter.line(f"workers that died: {', '.join(self.died)}")
        if self.died and not self.finished:
            terminalreporter.line("no test was run: every worker died")
        elif self.died and self.missing:
            terminalreporter.line(f"{self.missing} tests were not run because workers died")


def _is_out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # if it is not imported, the error is not torch's
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
