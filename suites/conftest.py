"""Activate the plugin, since the suites are being run."""

import pytest

from mue_check.pytest_plugin import activate


def pytest_configure(config: pytest.Config) -> None:
    """Check the options before anything is collected."""
    activate(config)
