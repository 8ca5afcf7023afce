"""A dense block is a mixture of equal experts that are all taken."""

import torch

from mue_check.conformance.block_probe import open_block
from mue_check.conformance.case import Case
from mue_check.conformance.checks.blockwise import BLOCKS, TOLERANCE, equal_experts, lengths
from mue_check.conformance.experts import DECLARE
from mue_check.conformance.registry import Finding, check, failed, passed, skipped, unknown
from mue_check.errors import ClaimError


@check(
    "dense-equivalence",
    law="with a = N and equal experts the routed output is one expert's, times the sum of the weights",
    source="arXiv 2605.23893: a dense block is a mixture of equal experts",
    candidates=BLOCKS,
)
@torch.no_grad()
def dense_equivalence(case: Case) -> Finding:
    """Take all of a few experts that are copies of one."""
    claim = case.claim
    few = claim.top_k or max(2, min(case.shape.activated, 4))
    dense = case.at(experts=few, activated=few)
    if dense.shape.experts != dense.shape.activated:
        return skipped("the claim never takes all experts")
    try:
        block = equal_experts(open_block(dense))
    except ClaimError as trouble:
        return unknown(str(trouble))
    x = case.tokens()
    routed, combine = block.output(x) - block.shared(x), block.routing(x).combine
    sums = claim.route_scale * combine.sum(1, keepdim=True).to(routed.dtype)
    said = claim.expected_sum()
    if said is not None and claim.kind == "token_choice":
        sums = torch.full_like(sums, claim.route_scale * said)
    if claim.apply_on == "input":
        if block.form.function is None:
            return unknown(f"what one expert computes was not found out: {DECLARE}")
        made = block.expected(x, combine)
    elif block.form.function is not None:
        made = sums * block.functions(x)[0]
    elif block.reads_router:
        keep = torch.arange(block.experts, device=x.device) == 0
        share = claim.route_scale * combine[:, :1].to(routed.dtype)
        made = (block.output(x, keep) - block.shared(x)) * sums / torch.where(share == 0, 1.0, share)
    else:
        return unknown(f"what one expert computes was not found out: {DECLARE}")
    error = (routed - made).norm(dim=-1) / lengths(routed, made)
    ratio = (routed * made).sum(1) / (made * made).sum(1).clamp_min(1e-30)
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
