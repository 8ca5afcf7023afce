"""Tests whose worker died, or that ran out of memory, run once more; whatever else fails has failed."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest
from _pytest.junitxml import xml_key

if TYPE_CHECKING:
    from xdist.scheduler.protocol import Scheduling
    from xdist.workermanage import WorkerController

MEMORY = "out of memory"
"""The property of a test that ran again for want of memory."""


def register(config: pytest.Config) -> None:
    """Watch over the tests of this process, and over its workers if it has any; once is enough."""
    if config.pluginmanager.has_plugin("mue_check-memory"):
        return
    config.pluginmanager.register(OutOfMemory(), "mue_check-memory")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Again(config), "mue_check-again")


class OutOfMemory:
    """Calls a test once more when it ran out of memory, in the same process, after memory was given back."""

    def __init__(self) -> None:
        self.tried: set[str] = set()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """The call, and the second one."""
        try:
            return (yield)
        except Exception as error:
            if pyfuncitem.nodeid in self.tried or not _is_out_of_memory(error):
                raise
            said = str(error).partition("\n")[0]
            # its frames, and those of what it was raised from, still hold the tensors
            held: BaseException | None = error
            while held is not None:
                traceback.clear_frames(held.__traceback__)
                held = held.__context__
        self.tried.add(pyfuncitem.nodeid)
        from mue_check.measure.stacks import stacks

        stacks().forget()
        pyfuncitem.user_properties.append((MEMORY, f"run again after: {said}"))
        return pyfuncitem.ihook.pytest_pyfunc_call(pyfuncitem=pyfuncitem)


class Again:
    """Gives a crashed worker's test back to the queue once, and says in the end what ran again or did not run."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.reasons: dict[str, str] = {}
        self.died: list[str] = []
        self.finished: set[str] = set()
        self.missing = 0

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport, sched: Scheduling) -> None:
        """The first crash of a test puts it back; the second is its failure."""
        if crashitem in self.reasons or self.config.option.dist not in ("load", "worksteal"):
            self.finished.add(crashitem)
            return
        self.reasons[crashitem] = f"its worker {report.node.gateway.id} died"
        sched.mark_test_pending(crashitem)
        report.outcome = "rerun"  # type: ignore[assignment]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerController, error: object | None) -> None:
        """Count the workers that died."""
        if error is not None:
            self.died.append(node.gateway.id)

    def pytest_report_teststatus(
        self, report: pytest.TestReport | pytest.CollectReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """A letter of its own, which is no failure."""
        return ("rerun", "R", ("RERUN", {"yellow": True})) if str(report.outcome) == "rerun" else None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember which tests ran again for want of memory; a crash that is made good is no test case of JUnit's."""
        if str(report.outcome) == "rerun" and (xml := self.config.stash.get(xml_key, None)):
            xml.node_reporters_ordered.remove(xml.node_reporter(report))
        for name, value in report.user_properties:
            if name == MEMORY:
                self.reasons.setdefault(report.nodeid, f"{name}: {value}")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Remember which tests came to an end."""
        self.finished.add(nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Tests that nobody was left to run are a failure."""
        self.missing = session.testscollected - len(self.finished)
        if self.died and (self.missing or not session.testscollected) and session.exitstatus in (0, 5):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """What ran again, and what never ran."""
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
            terminalreporter.line(f"{self.missing} tests were not run, since workers died")


def _is_out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # whoever has not imported it cannot have raised it
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
