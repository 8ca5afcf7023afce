"""What a mixture says of its router is what conformance checks of it."""

import pytest

from mue_check.conformance.builtin import _CLAIMS, builtin_router
from mue_check.spec import Experts


@pytest.mark.parametrize("router", _CLAIMS)
def test_a_mixture_and_conformance_claim_one_sum(router: str) -> None:
    claim = builtin_router(router).routing_spec  # type: ignore[attr-defined]
    groups = claim.groups if claim.per_group_k else 1
    activated = claim.top_k or 4
    experts = Experts(total=16, activated=activated, hidden=8, groups=groups, router=router)
    assert experts.claimed_sum == (claim.expected_sum() if claim.kind == "token_choice" else None)
