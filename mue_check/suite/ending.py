"""How a run of the suites ends: its report, and whether it may end with exit code 0.

Exit code 0 says that every test ran, that every question of this run has its expected verdict, and that there was
something to judge. The exit code and the lines on the terminal are about this run; the report is of the whole study.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from mue_check.errors import MueCheckError

if TYPE_CHECKING:
    from mue_check.questions.summary import Summary
    from mue_check.suite.settings import Settings

_WORDS = {
    "skipped": ("skipped test", "skipped tests"),
    "xfailed": ("expected failure", "expected failures"),
    "found": ("finding of which no verdict is expected", "findings of which no verdict is expected"),
}

_FINISHED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


class Ending:
    """Counts what was judged in the controller of a run, changes a wrong exit code 0, and writes the report."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config, self.settings = config, settings
        self.reports: list[pytest.TestReport] = []
        self.begun = False
        self.summary: Summary | None = None
        self.lines: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note calls, and tests that were skipped before."""
        if report.when == "call" or report.skipped:
            self.reports.append(report)
        if not self.begun and report.when == "call":
            from mue_check.study.asked import FOLDER, begin_run

            if (self.settings.root / FOLDER).exists():
                try:
                    begin_run(self.settings.root, self.settings.run)
                except MueCheckError as error:  # such as a full disk: no later test could store its answer
                    pytest.exit(str(error), returncode=pytest.ExitCode.TESTS_FAILED)
                self.begun = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge what this run asked, and fail a run that passed because an answer is missing."""
        from mue_check.study.asked import finish_run

        if self.config.option.collectonly:
            return
        try:
            ended = session.exitstatus in _FINISHED and not (session.shouldstop or session.shouldfail)
            if self.begun and ended:
                finish_run(self.settings.root, self.settings.run)
            part = self._judge()
        except MueCheckError as error:
            self._fail(session, f"no report: {error}")
            return
        passed = session.exitstatus == pytest.ExitCode.OK
        if passed and (why := self._nothing_judged(part)):
            self._fail(session, f"nothing was judged: {why}", pytest.ExitCode.NO_TESTS_COLLECTED)
        elif passed and part is not None and not self._is_as_expected(part):
            self._fail(session, "no test failed, but the answers of this run are not all as expected: exit code 1")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table and the verdict of this run, and the verdict of the study where it has other questions."""
        from mue_check.catalog import write_report
        from mue_check.overview.conclusion import outcome_lines
        from mue_check.overview.report import verdict_lines

        # pytest cuts its own summary to the width of the terminal
        failed = [f"FAILED {report.nodeid}: {_failure_text(report)}" for report in self.reports if report.failed]
        if self.summary is None and not self.lines and not failed:
            return
        terminalreporter.section("mue_check")
        for line in failed:
            terminalreporter.line(line)
        if self.config.get_verbosity() < 0:  # -q prints no header
            self.lines = [*self.settings.notices, *self.lines]
        if self.summary is not None:
            part = self.summary.of_run(self.settings.run)
            lines = [*verdict_lines(part), *outcome_lines(part, "this run")]
            if self.summary.unfinished or len(part.asked) < len(self.summary.questions):
                lines += outcome_lines(self.summary, "whole study")
            self.lines = [*lines, *self.lines]
            try:
                self.lines.append(f"report of the whole study: {write_report(self.settings.root, self.summary)}")
            except MueCheckError as error:
                self.lines.append(f"no report: {error}")
        for line in self.lines:
            terminalreporter.line(line)

    def _judge(self) -> Summary | None:
        """The part of the study that this run asked; None if it asked nothing."""
        from mue_check.catalog import summarize
        from mue_check.study.asked import load_asked

        if not any(asked.run == self.settings.run for asked in load_asked(self.settings.root)):
            return None
        self.summary = summarize(self.settings.root)
        return self.summary.of_run(self.settings.run)

    def _nothing_judged(self, part: Summary | None) -> str:
        """Why an exit code of 0 would be meaningless; empty if a test that passed judged something."""
        expected = {a.question.name: bool(a.question.expected) for a in part.asked} if part else {}
        counts: Counter[str] = Counter()
        for report in self.reports:
            if report.passed:
                questions = [expected[name] for name, _ in report.user_properties if name in expected]
                if not questions or any(questions):
                    return ""
                counts["found"] += 1
            else:
                counts["xfailed" if hasattr(report, "wasxfail") else "skipped"] += 1
        return ", ".join(f"{n} {_WORDS[what][n > 1]}" for what, n in counts.items()) or "no test was called"

    def _is_as_expected(self, part: Summary) -> bool:
        """Whether the answers of this run are those that its tests reported."""
        if self.settings.allow_inconclusive and part.verdict == "INCONCLUSIVE":
            return not part.unanswered
        return part.as_expected

    def _fail(self, session: pytest.Session, line: str, code: pytest.ExitCode = pytest.ExitCode.TESTS_FAILED) -> None:
        self.lines.append(line)
        if session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = code


def _failure_text(report: pytest.TestReport) -> str:
    """The first two lines of why a test failed: the verdict with its question, and what was measured."""
    message = getattr(getattr(report.longrepr, "reprcrash", None), "message", str(report.longrepr))
    return "; ".join(line.strip() for line in message.removeprefix("Failed: ").splitlines()[:2])
