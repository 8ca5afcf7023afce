"""The suites' voice: each answer as it comes."""

import pytest


class Teller:
    """Says each answer as it comes, in place of a dot: the suites run for minutes. Silent with -q, gives way to -v."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def answers(self, report: pytest.TestReport | pytest.CollectReport) -> list[str]:
        """A line for each question that this finished test answered; of several laws the first stands for all."""
        if not isinstance(report, pytest.TestReport) or report.when != "call" or self.config.get_verbosity() != 0:
            return []
        return [f"{name}: {str(value).splitlines()[0]}" for name, value in report.user_properties]

    def pytest_report_teststatus(self, report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
        """No letter for a test whose answer is printed."""
        return ("passed", "", "") if report.passed and self.answers(report) else None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print the answers."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None:
            return
        for line in self.answers(report):
            terminal.ensure_newline()
            terminal.write_line(line)
