"""A cluster of this machine alone, for those tests that ask for one."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from mue_check.cluster import ClusterInfo, reach

TOKEN = secrets.token_hex(32)
"""One for all clusters of this process: Ray reads it once."""


@pytest.fixture(scope="session")
def found() -> Iterator[ClusterInfo]:
    """A cluster of this machine alone, as ``--cluster local`` makes it. It takes seconds to start, so all share it."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        found = reach("local", stack.callback)
        for name, value in found.environment.items():
            patch.setenv(name, value)
        yield found
