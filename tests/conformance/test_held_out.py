"""Held-out candidates: a correct one passes with no check open, a broken one fails the check that names its bug."""

import pytest
import torch
from torch import nn

from mue_check.conformance.api import check_router
from mue_check.conformance.result import verdict_of
from tests.conformance import held_out as routers
from tests.specimens import Gated, variant


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


def test_groups_that_are_not_claimed_are_named() -> None:
    def of_half_the_experts(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        halves = Gated.scores(m, x).unflatten(-1, (2, -1))
        better = halves.sum(-1, keepdim=True) == halves.sum(-1, keepdim=True).amax(-2, keepdim=True)
        return (halves * better).flatten(-2)

    grouped = variant(Gated, "Grouped", scores=of_half_the_experts)
    (result,) = check_router(grouped, only=["selection"], seeds=1)
    assert result.outcome == "unknown"
    assert "claim groups = 2, group_limit = 1" in result.explain()
