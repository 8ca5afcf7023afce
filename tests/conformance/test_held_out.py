"""Held-out candidates: a correct one passes with no check open, a broken one fails the check that names its bug."""

import pytest
from torch import nn

from mue_check.conformance.api import check_router
from mue_check.conformance.result import verdict_of
from tests.conformance import held_out as routers


@pytest.mark.parametrize("router", routers.RIGHT, ids=lambda r: r.__name__)
def test_a_right_router_passes(router: type[nn.Module]) -> None:
    results = check_router(router, claim=routers.RIGHT[router], seeds=1)
    against = [r.explain() for r in results if r.question == "claim" and r.against]
    assert verdict_of(results, "claim") == "PASS", against


@pytest.mark.parametrize("router", routers.BROKEN, ids=lambda r: r.__name__)
def test_a_broken_router_fails_where_it_is_broken(router: type[nn.Module]) -> None:
    claim, check = routers.BROKEN[router]
    (result,) = check_router(router, claim=claim, only=[check], seeds=1)
    assert result.outcome == "failed", result.explain()
