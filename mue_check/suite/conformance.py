"""The conformance checks of the router of ``--router``, as cases of suites/test_router.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mue_check.suite.settings import Settings

if TYPE_CHECKING:
    from _pytest.mark.structures import ParameterSet

FIXTURE = "router_check"


def router_checks(settings: Settings) -> Sequence[ParameterSet]:
    """One case per check. An expected failure is a strict xfail.

    No cases if --axes selects axes, or for content_blind, which does not see activations.
    """
    from mue_check.catalog import AXES
    from mue_check.conformance.api import bound_checks
    from mue_check.routing.factory import load_candidate

    if settings.router == "content_blind" or set(settings.axes) != set(AXES):
        return []
    where, _, attribute = settings.candidate.rpartition(":")
    path = settings.folder / where if where.endswith(".py") else where
    candidate = load_candidate("router", f"{path}:{attribute}", settings.claim)
    return bound_checks(replace(candidate, name=settings.candidate), expected=settings.expected)
