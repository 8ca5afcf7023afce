"""xdist workers, each with an environment of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest


def start_workers(config: pytest.Config, environments: Sequence[Mapping[str, str]]) -> None:
    """Have xdist start one worker per environment; a replacement for one that crashed has the same environment.

    To be called before xdist reads its options: from a ``tryfirst`` hook ``pytest_cmdline_main``.
    """
    option = config.option
    option.tx = ["//".join(["popen", *(f"env:{k}={v}" for k, v in env.items())]) for env in environments]
    option.dist = "worksteal"
    if option.maxworkerrestart is None:  # a worker that cannot start would be replaced for ever
        option.maxworkerrestart = str(4 * len(environments))
