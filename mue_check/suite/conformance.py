"""The conformance checks of the router of ``--router``, as cases of suites/test_router.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mue_check.suite.settings import Settings

if TYPE_CHECKING:
    import pytest
    from _pytest.mark.structures import ParameterSet

FIXTURE = "router_check"


def router_checks(settings: Settings, config: pytest.Config) -> Sequence[ParameterSet]:
    """One case per check. An expected failure is a strict xfail. A router of yours is checked in a child process.

    No cases if --axes selects axes, or for content_blind, which does not see activations.
    """
    from mue_check.catalog import AXES
    from mue_check.conformance.api import InProcess, Runner, bound_checks
    from mue_check.conformance.isolate import CandidateProcess, Job
    from mue_check.routing.factory import load_candidate

    if settings.router == "content_blind" or set(settings.axes) != set(AXES):
        return []
    where, _, attribute = settings.candidate.rpartition(":")
    runner: Runner
    if where == "builtin":
        runner = InProcess(load_candidate("router", settings.candidate, settings.claim), seeds=2)
    else:
        path = settings.folder / where if where.endswith(".py") else where
        runner = CandidateProcess(
            Job(kind="router", name=f"{path}:{attribute}", shown=settings.candidate, claim=settings.claim)
        )
        config.add_cleanup(runner.close)
    return bound_checks(runner, "router", settings.expected)
