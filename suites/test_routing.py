"""Routing: the load of the experts and the weights of the router, for mixtures that were trained."""

import pytest

from mue_check.pytest_plugin import Expect, TargetCase
from mue_check.questions.routing import ask_routing
from mue_check.spec import Experts
from mue_check.study.folder import Study


@pytest.mark.axis("activated_experts", corpora=1)
def test_activated_experts(study: Study, target_case: TargetCase, expect: Expect) -> None:
    """The active weights sum to what the router claims."""
    expect(ask_routing(study, target_case.ladder, target_case.target))


@pytest.mark.axis("capacity", corpora=1)
def test_capacity(study: Study, target_case: TargetCase, expect: Expect) -> None:
    """The active weights sum to what the router claims."""
    expect(ask_routing(study, target_case.ladder, target_case.target))


@pytest.mark.axis("heldout", corpora=1)
def test_heldout(study: Study, target_case: TargetCase, expect: Expect) -> None:
    """The active weights sum to what the router claims, where the composite target is a mixture."""
    if not isinstance(target_case.target.model.feed_forward, Experts):
        pytest.skip("the composite is dense")
    expect(ask_routing(study, target_case.ladder, target_case.target))
