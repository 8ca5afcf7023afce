"""Worker processes with an environment each, as pytest-xdist starts them. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from mue_check.errors import SpecError

RESTARTS = 4
"""Workers that may be replaced, for each there is: what xdist allows with -n. A crash at collection ends with it."""


def refuse_other_workers(config: pytest.Config, option: str) -> None:
    """SpecError where workers cannot be started, or were asked for in another way beside ``option``."""
    if not config.pluginmanager.hasplugin("xdist"):
        raise SpecError(f"{option}: needs pytest-xdist, which is not installed or is disabled (-p no:xdist)")
    given = config.option
    beside = {
        "-n": given.numprocesses is not None,
        "--tx": bool(given.tx),
        "-d": given.distload,
        f"--dist {given.dist}": given.dist not in ("no", "worksteal"),
        "--pdb": given.usepdb,
    }
    for other, is_given in beside.items():
        if is_given:
            raise SpecError(f"{option}: cannot go with {other}: it starts its own workers")


def start_workers(config: pytest.Config, environments: Sequence[Mapping[str, str]]) -> None:
    """One worker of this machine for each environment, set before it imports anything; call in ``pytest_cmdline_main``.

    A worker that dies is replaced by one with the same environment and another number.
    """
    for name, value in (item for each in environments for item in each.items()):
        if "//" in value:
            raise SpecError(f"{name}={value}: a worker's variable cannot hold //")
    variables = [[f"env:{name}={value}" for name, value in each.items()] for each in environments]
    config.option.tx = ["//".join(["popen", *each]) for each in variables]
    config.option.dist = "worksteal"
    if config.option.maxworkerrestart is None:
        config.option.maxworkerrestart = str(RESTARTS * len(environments))
