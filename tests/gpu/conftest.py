"""Print each failure at once: a run on a borrowed GPU may be killed before pytest prints its summary."""

from typing import Any

import pytest


class PrintFailures:
    """Writes the traceback of a failure when it happens."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        if report.failed:
            terminal.write_line(f"\n{report.longreprtext}")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(PrintFailures(config))
