"""The cases of the suites' tests: from a test's ``axis`` marker, the command line and the checks of a router."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

from mue_check.questions.case import Case, Scope

if TYPE_CHECKING:
    from _pytest.mark.structures import ParameterSet

    from mue_check.suite.settings import Settings

ROUTER_CHECK = "router_check"
"""The fixture of the checks of a router."""
MARKER = (
    "axis(name, question=drift|scales|speed|tune_once, corpora=N, ladder=NAME, targets=N, least=X, not_in=TIERS): "
    "what a suite's test is about; on the first N corpora, one ladder and its first N targets, or those X times its "
    "reference; in all tiers but some"
)


def fixture_cases(
    names: Collection[str], settings: Settings, marker: pytest.Mark | None
) -> Iterator[tuple[str, Sequence[Case]]]:
    """The cases of each fixture among ``names`` that some kind of question declares."""
    from mue_check.catalog import CASES

    scope = Scope(axis=marker.args[0], **marker.kwargs) if marker else Scope()
    for name, make in CASES.items():
        if name in names:
            yield name, make(settings, scope)


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
