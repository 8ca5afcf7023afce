"""Start pytest-xdist workers, each with its own environment variables. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from mue_check.errors import SpecError

RESTARTS = 4
"""How often each worker may be replaced, as xdist allows with -n. It also ends a run that crashes at collection."""
RERUNS_WITH = ("load", "worksteal")
"""The schedulers of xdist that take back a test whose worker crashed."""


def require_xdist(config: pytest.Config, option: str) -> None:
    """SpecError if xdist is missing."""
    if not config.pluginmanager.hasplugin("xdist"):
        raise SpecError(f"{option}: needs pytest-xdist, which is not installed or is disabled (-p no:xdist)")


def refuse_other_workers(config: pytest.Config, option: str) -> None:
    """SpecError if xdist is missing, or if another option also asks for workers."""
    require_xdist(config, option)
    given = config.option
    others = {
        "-n": given.numprocesses is not None,
        "--tx": bool(given.tx),
        "-d": given.distload,
        f"--dist {given.dist}": given.dist not in ("no", *RERUNS_WITH),
        "--pdb": given.usepdb,
    }
    for other, is_given in others.items():
        if is_given:
            raise SpecError(f"{option}: cannot be combined with {other}: it starts its own workers")


def start_workers(config: pytest.Config, environments: Sequence[Mapping[str, str]]) -> None:
    """Have xdist start one worker per environment. Call it in ``pytest_cmdline_main``.

    The variables are set before a worker's interpreter starts. A worker that dies is replaced by one with the same
    environment and another number.
    """
    for name, value in (item for each in environments for item in each.items()):
        if "//" in value:
            raise SpecError(f"the value of {name} contains //, which a worker's variable cannot")
    variables = [[f"env:{name}={value}" for name, value in each.items()] for each in environments]
    config.option.tx = ["//".join(["popen", *each]) for each in variables]
    if config.option.dist == "no":
        config.option.dist = "load"
    if config.option.maxworkerrestart is None:
        config.option.maxworkerrestart = str(RESTARTS * len(environments))


def keep_apart(config: pytest.Config, router: str) -> None:
    """Run a user's router in a worker where no workers are requested: it may end its process, even with exit code 0.

    Not with ``--pdb``, which needs the terminal. Call it in ``pytest_cmdline_main``.
    """
    given = config.option
    if hasattr(config, "workerinput") or given.collectonly or given.usepdb:
        return
    require_xdist(config, f"--router {router}")
    if not given.numprocesses and not given.tx:
        given.numprocesses = None  # xdist would not start any worker for -n 0
        start_workers(config, [{}])


def hand_out_one_by_one(config: pytest.Config) -> None:
    """With ``--dist load``, which -n implies, let each worker take one test after another, unless the user sets it.

    Tests run longest first, so that no worker begins a long one when the others are done.
    """
    if getattr(config.option, "dist", None) == "load" and config.option.maxschedchunk is None:
        config.option.maxschedchunk = 1
