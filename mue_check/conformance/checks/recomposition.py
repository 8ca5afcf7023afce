"""Is a block's output the sum of its experts' outputs times the router's weights? If not, what is it?"""

from dataclasses import replace

import torch
from torch import Tensor

from mue_check.conformance.block import ProbedBlock
from mue_check.conformance.block_probe import probe_block
from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import BLOCKS, Check, CheckOutcome, failed, passed, skipped, unknown
from mue_check.conformance.checks.blockwise import TOLERANCE, blockwise, relative_error, sizes_of, with_equal_experts
from mue_check.conformance.checks.compare import is_activated
from mue_check.conformance.find_experts import DECLARE
from mue_check.errors import UnreadableError


def recomposition(case: ConformanceCase) -> CheckOutcome:
    """y = route_scale * sum_e C[t, e] f_e(x) + shared(x).

    Where f = d / 2, also with f = d, which makes other matrices square.
    """
    outcome = _recompose(case)
    if outcome.status == "passed" and 2 * case.shape.f == case.shape.d:
        square = _recompose(case.at(f=case.shape.d))
        if square.status == "failed":
            return replace(square, measured=f"where f = d = {case.shape.d}: {square.measured}")
    return outcome


@blockwise
@torch.no_grad()
def _recompose(block: ProbedBlock) -> CheckOutcome:
    x = block.built.case.tokens()
    if block.form.against_claim:
        return failed(f"the experts are not what the claim declares: {block.form.against_claim}")
    if block.form.function is None:
        return _compare_shares(block, x)
    try:
        combine = block.routing(x).combine
    except UnreadableError as trouble:
        if block.built.case.claim.experts is None:
            raise
        return failed(f"with the experts as declared, {trouble}")
    error = relative_error(block.routed(x), block.claimed_output(x, combine))
    if not float(error.max()) <= TOLERANCE:  # NaN fails
        return _explain(block, x, combine, error)
    source = "" if block.reads_router else " (weights read from the output; the block has no router that can be read)"
    gates = f", with {', '.join(block.form.gates)} at 1 instead of 0" if block.form.gates else ""
    return passed(f"holds to {float(error.max()):.1g}; f_e = {block.form.function}{source}{gates}")


def _explain(block: ProbedBlock, x: Tensor, combine: Tensor, error: Tensor) -> CheckOutcome:
    """A failure that says what the output shows instead of the router's weights."""
    claim = block.built.case.claim
    worst = f"token {int(error.argmax())}"
    off = f"the routed output is off by {float(error.max()):.2g} of its size"
    other = "output" if claim.apply_on == "input" else "input"
    if _holds_on(other, block, x, combine):
        return failed(f"{off}: the weights multiply the experts' {other}, not their {claim.apply_on}", worst=worst)
    if claim.apply_on == "input":
        routed, claimed = block.routed(x), block.claimed_output(x, combine)
        ratio = float((routed * claimed).sum() / (claimed * claimed).sum())
        if float((routed - ratio * claimed).norm()) <= TOLERANCE * float(routed.norm()):
            return _constant_factor(block, ratio, off, worst)
        return failed(f"{off} and is not a multiple of what the claim gives", worst=worst, causes=(11, 26))
    weights, rest = block.solve_weights(x)
    if float(rest.max()) > 10 * TOLERANCE:
        return _not_a_sum(block, rest)
    claimed = claim.route_scale * combine.to(weights.dtype)
    token, expert = divmod(int((weights - claimed).abs().argmax()), block.experts)
    worst = (
        f"token {token}, expert {expert}: weight {float(weights[token, expert]):.4g}, "
        f"expected {float(claimed[token, expert]):.4g}"
    )
    met = claimed != 0
    stray = (weights.abs() > TOLERANCE * weights.abs().max()) & ~met
    if bool(stray.any()):
        return failed(f"{off}: experts add to {int(stray.sum())} tokens that were not assigned to them", worst=worst)
    if _normalizes_as_claimed(block, weights, combine):
        return passed("the block turns what its router returns into weights with the claimed sum, in the same order")
    return _explain_weights(block, weights, claimed, met, off, worst)


def _explain_weights(
    block: ProbedBlock, weights: Tensor, claimed: Tensor, met: Tensor, off: str, worst: str
) -> CheckOutcome:
    """How the weights [T, E] in the output differ from the claimed ones, at the experts that tokens met."""
    ratio, inner = weights[met] / claimed[met], weights[met] / block.built.case.claim.route_scale
    if _is_constant(ratio):
        return _constant_factor(block, float(ratio.mean()), off, worst)
    if _is_constant(inner):
        measured = f"{off}: every selected expert has weight {float(inner.mean()):.4g}, regardless of the router"
        return failed(measured, worst=worst, causes=(11,))
    measured = f"{off}: weights are {float(ratio.min()):.3g} to {float(ratio.max()):.3g} times the router's"
    by_token = torch.where(met, weights / torch.where(met, claimed, 1.0), torch.nan)
    spread = by_token.nan_to_num(nan=-torch.inf).amax(1) - by_token.nan_to_num(nan=torch.inf).amin(1)
    if not float(spread[met.any(1)].max()) <= 10 * TOLERANCE * float(ratio.abs().max()):
        return failed(measured, worst=worst, causes=(7, 11))
    sums = claimed.sum(1)
    normalized = _is_constant(weights.sum(1)[met.any(1)])
    how = "normalizes them again" if normalized else "scales each token differently"
    measured += f", which sum to {float(sums.min()):.3g} to {float(sums.max()):.3g}; the block {how}"
    return failed(measured, worst=worst, causes=(7, 3))


def _not_a_sum(block: ProbedBlock, rest: Tensor) -> CheckOutcome:
    shape = block.built.case.shape
    square = shape.d in (shape.f, 2 * shape.f)
    where = f" where f = {shape.f} and d = {shape.d}: are matrices transposed?" if square else ""
    return failed(
        f"{float(rest.max()):.2g} of a token's routed output is not a sum of its experts' outputs{where}",
        worst=f"token {int(rest.argmax())}",
        causes=(26,) if square else (12,),
    )


def _constant_factor(block: ProbedBlock, ratio: float, off: str, worst: str) -> CheckOutcome:
    """The same factor for all tokens and experts."""
    claim = block.built.case.claim
    measured = f"{off}: weights are {ratio:.4g} times what router and claim give, for all tokens and experts"
    for scale in {claim.route_scale, claim.expected_sum() or 1.0} - {1.0}:
        for value, what in (
            (scale, "is applied twice"),
            (1 / scale, "is not applied"),
            (1 / scale**2, "divides instead of multiplying"),
        ):
            if abs(ratio - value) <= 1e-2 * value:
                return failed(f"{measured}: the scale {scale:g} {what}", worst=worst, causes=(10,))
    by_a = is_activated(ratio, block.built.case)
    what = 'activated_scale = "block"' if by_a else f"route_scale = {ratio * claim.route_scale:.4g}"
    return failed(f"{measured}; if that is intended, claim {what}", worst=worst, causes=(10, 7))


def _holds_on(apply_on: str, block: ProbedBlock, x: Tensor, combine: Tensor) -> bool:
    """Whether the law holds with the weights on the experts' input or output."""
    case = block.built.case
    candidate = replace(case.candidate, claim=replace(case.claim, apply_on=apply_on))  # type: ignore[arg-type]
    other = replace(block, built=replace(block.built, case=replace(case, candidate=candidate)))
    return float(relative_error(block.routed(x), other.claimed_output(x, combine)).max()) <= TOLERANCE


def _normalizes_as_claimed(block: ProbedBlock, weights: Tensor, combine: Tensor) -> bool:
    """Whether the block's weights have the claimed sum, in the router's order, though the router's own do not."""
    claim, met = block.built.case.claim, combine != 0
    expected = claim.expected_sum()
    if expected is None or claim.kind != "token_choice":
        return False
    fits = (weights.sum(1) / claim.route_scale - expected).abs() <= TOLERANCE * expected
    returned = (combine.sum(1) - expected).abs() <= TOLERANCE * expected
    order = [torch.where(met, w.double(), -torch.inf).argsort(dim=1, stable=True) for w in (weights, combine)]
    return bool(fits.all()) and not bool(returned.any()) and torch.equal(*order)


def _is_constant(values: Tensor) -> bool:
    return len(values) > 1 and float(values.max() - values.min()) <= 10 * TOLERANCE * float(values.abs().mean())


def _compare_shares(block: ProbedBlock, x: Tensor) -> CheckOutcome:
    """Without f_e: if all experts are equal, what they add to a token is in the ratio of their weights."""
    if not block.reads_router:
        return unknown(f"neither a readable router nor the function of one expert was found: {DECLARE}")
    combine, equal = block.routing(x).combine, with_equal_experts(block)
    shared = equal.shared(x)
    some = combine.abs().sum(0).topk(min(8, block.experts)).indices
    each = torch.eye(block.experts, dtype=torch.bool, device=x.device)[some]
    added = torch.stack([equal.output(x, keep) - shared for keep in each], dim=1)
    weight = combine[:, some].to(added.dtype).unsqueeze(-1)
    # cross products avoid dividing by a weight of 0
    best = weight.abs().argmax(dim=1, keepdim=True)
    first, first_weight = added.gather(1, best.expand(-1, -1, x.shape[1])), weight.gather(1, best)
    error = (added * first_weight - first * weight).norm(dim=-1).amax(1) / sizes_of((first * first_weight).squeeze(1))
    if float(error.max()) > TOLERANCE:
        measured = f"with equal experts, what they add is off the ratio of their weights by {float(error.max()):.2g}"
        return failed(measured, worst=f"token {int(error.argmax())}", causes=(11, 7))
    return unknown(f"what experts add is in the ratio of the weights; the scale is unknown without f_e: {DECLARE}")


@torch.no_grad()
def dense_equivalence(case: ConformanceCase) -> CheckOutcome:
    """With a = N and equal experts, the routed output is one expert's output times the sum of the weights."""
    few = case.claim.top_k or max(2, min(case.shape.activated, 4))
    dense = case.at(experts=few, activated=few)
    if dense.shape.experts != dense.shape.activated:
        return skipped("the claim never activates all experts")
    claim = dense.claim
    block = with_equal_experts(probe_block(dense))
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
    Check(run=recomposition, source="sgl-project/sglang PR#8511", candidates=BLOCKS),
    Check(
        run=dense_equivalence,
        source="arXiv 2605.23893: a dense block is a mixture of equal experts",
        candidates=BLOCKS,
    ),
)
