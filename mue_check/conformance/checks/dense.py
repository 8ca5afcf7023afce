"""A dense block equals a mixture of equal experts that are all activated."""

import torch

from mue_check.conformance.block_probe import probe_block
from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import BLOCKS, Check, CheckOutcome, failed, passed, skipped, unknown
from mue_check.conformance.checks.blockwise import TOLERANCE, relative_error, with_equal_experts
from mue_check.conformance.find_experts import DECLARE
from mue_check.errors import ClaimError


@torch.no_grad()
def dense_equivalence(case: ConformanceCase) -> CheckOutcome:
    """With a = N and equal experts, the routed output is one expert's output times the sum of the weights."""
    few = case.claim.top_k or max(2, min(case.shape.activated, 4))
    dense = case.at(experts=few, activated=few)
    if dense.shape.experts != dense.shape.activated:
        return skipped("the claim never activates all experts")
    claim = dense.claim
    try:
        block = with_equal_experts(probe_block(dense))
    except ClaimError as trouble:
        return unknown(str(trouble))
    x = case.tokens()
    routed, combine = block.routed(x), block.routing(x).combine
    sums = claim.route_scale * combine.sum(1, keepdim=True).to(routed.dtype)
    total = claim.expected_sum()
    if total is not None and claim.kind == "token_choice":
        sums = torch.full_like(sums, claim.route_scale * total)
    function = block.form.function
    if function is not None and claim.apply_on == "input":
        expected = block.claimed_output(x, combine)
    elif function is not None:
        expected = sums * block.expert_outputs(x)[0]
    elif block.reads_router and claim.apply_on == "output":
        keep = torch.arange(block.experts, device=x.device) == 0
        share = claim.route_scale * combine[:, :1].to(routed.dtype)
        expected = (block.output(x, keep) - block.shared(x)) * sums / torch.where(share == 0, 1.0, share)
    else:
        return unknown(f"the function that one expert computes is unknown: {DECLARE}")
    error = relative_error(routed, expected)
    ratio = (routed * expected).sum(1) / (expected * expected).sum(1).clamp_min(1e-30)
    if float(error.max()) <= TOLERANCE:
        return passed(
            f"N = a = {block.experts}: {float(sums.mean()):.3g} times one expert, to {float(error.max()):.1g}"
        )
    return failed(
        f"N = a = {block.experts}: {float(ratio.min()):.3g} to {float(ratio.max()):.3g} times what one expert and the "
        f"sum of weights give, off by {float(error.max()):.2g}",
        worst=f"token {int(error.argmax())}",
        causes=(10, 3, 11),
    )


CHECKS = (
    Check(
        run=dense_equivalence,
        source="arXiv 2605.23893: a dense block is a mixture of equal experts",
        candidates=BLOCKS,
    ),
)
