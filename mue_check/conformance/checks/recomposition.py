"""Is a block's output the experts' outputs times the router's weights, and if not, what does it look like."""

from dataclasses import replace

import torch
from torch import Tensor

from mue_check.conformance.block import Block
from mue_check.conformance.case import Case
from mue_check.conformance.checks.blockwise import BLOCKS, TOLERANCE, blockwise, equal_experts, lengths
from mue_check.conformance.experts import DECLARE
from mue_check.conformance.registry import Finding, check, failed, passed, unknown
from mue_check.errors import UnreadableError


@check(
    "recomposition",
    law="y = route_scale * sum_e C[t, e] f_e(x) + shared(x)",
    source="sgl-project/sglang PR#8511",
    candidates=BLOCKS,
)
def recomposition(case: Case) -> Finding:
    """Put the output together from its parts; at f = d / 2 also with f = d, where other matrices are square."""
    finding = _recomposed(case)
    if finding.status == "passed" and 2 * case.shape.f == case.shape.d:
        square = _recomposed(case.at(f=case.shape.d))
        if square.status == "failed":
            return replace(square, measured=f"where f = d = {case.shape.d}: {square.measured}")
    return finding


@blockwise
@torch.no_grad()
def _recomposed(block: Block) -> Finding:
    x = block.built.case.tokens()
    if block.form.against_claim:
        return failed(f"the experts are not what the claim declares: {block.form.against_claim}")
    if block.form.function is None:
        return _relative(block, x)
    try:
        combine = block.routing(x).combine
    except UnreadableError as trouble:
        if block.built.case.claim.experts is None:
            raise
        return failed(f"with the experts as they are declared, {trouble}")
    routed, made = block.output(x) - block.shared(x), block.expected(x, combine)
    error = (routed - made).norm(dim=-1) / lengths(routed, made)
    if float(error.max()) <= TOLERANCE:
        told = "" if block.reads_router else " (weights read from the output, for the block has no router to be asked)"
        return passed(f"holds to {float(error.max()):.1g}; f_e = {block.form.function}{told}")
    return _why(block, x, combine, error)


def _why(block: Block, x: Tensor, combine: Tensor, error: Tensor) -> Finding:
    """What the output shows in place of the router's weights."""
    case, token = block.built.case, int(error.argmax())
    claim, worst = case.claim, f"token {token}"
    off = f"the routed output is off by {float(error.max()):.2g} of its size"
    other = replace(case.candidate, claim=replace(claim, apply_on="output" if claim.apply_on == "input" else "input"))
    if _holds(block, x, combine, replace(case, candidate=other)):
        return failed(
            f"{off}: the weights multiply the experts' {other.claim.apply_on}, not their {claim.apply_on}", worst=worst
        )
    if claim.apply_on == "input":
        return _by_factor(block, x, combine, off, worst)
    weights, left = block.weights_in(x)
    if float(left.max()) > 10 * TOLERANCE:
        token = int(left.argmax())
        square = case.shape.d in (case.shape.f, 2 * case.shape.f)
        where = f" where f = {case.shape.f} and d = {case.shape.d}: are matrices transposed?" if square else ""
        return failed(
            f"{float(left.max()):.2g} of a token's routed output is no sum of the experts' outputs for it{where}",
            worst=f"token {token}",
            causes=(26,) if square else (12,),
        )
    said = claim.route_scale * combine.to(weights.dtype)
    apart = (weights - said).abs()
    token, expert = divmod(int(apart.argmax()), block.experts)
    shown, told = float(weights[token, expert]), float(said[token, expert])
    worst = f"token {token}, expert {expert}: weight {shown:.4g}, not {told:.4g}"
    met = said != 0
    stray = (weights.abs() > TOLERANCE * weights.abs().max()) & ~met
    if bool(stray.any()):
        return failed(
            f"{off}: experts add to tokens that they were not given, at {int(stray.sum())} places", worst=worst
        )
    if _turned(block, weights, combine):
        return passed("the block makes weights that sum as claimed from what its router returns, in the same order")
    ratio, inner = weights[met] / said[met], weights[met] / claim.route_scale
    if _one_number(ratio):
        return _constant(block, float(ratio.mean()), off, worst)
    if _one_number(inner):
        words = f"{off}: every chosen expert has weight {float(inner.mean()):.4g}, whatever the router says"
        return failed(words, worst=worst, causes=(11,))
    by_token = torch.where(met, weights / torch.where(met, said, 1.0), torch.nan)
    spread = by_token.nan_to_num(nan=-torch.inf).amax(1) - by_token.nan_to_num(nan=torch.inf).amin(1)
    if float(spread[met.any(1)].max()) <= 10 * TOLERANCE * float(ratio.abs().max()):
        sums = claim.route_scale * combine.sum(1)
        anew = _one_number(weights.sum(1)[met.any(1)])
        how = "normalizes them anew" if anew else "scales each token in its own way"
        words = (
            f"{off}: weights are {float(ratio.min()):.3g} to {float(ratio.max()):.3g} times the router's, which sum to"
        )
        return failed(
            f"{words} {float(sums.min()):.3g} to {float(sums.max()):.3g}; the block {how}", worst=worst, causes=(7, 3)
        )
    return failed(
        f"{off}: weights are {float(ratio.min()):.3g} to {float(ratio.max()):.3g} times the router's",
        worst=worst,
        causes=(7, 11),
    )


def _by_factor(block: Block, x: Tensor, combine: Tensor, off: str, worst: str) -> Finding:
    routed, made = block.output(x) - block.shared(x), block.expected(x, combine)
    ratio = float((routed * made).sum() / (made * made).sum())
    if float((routed - ratio * made).norm()) <= TOLERANCE * float(routed.norm()):
        return _constant(block, ratio, off, worst)
    return failed(f"{off} and no multiple of what the claim gives", worst=worst, causes=(11, 26))


def _constant(block: Block, ratio: float, off: str, worst: str) -> Finding:
    """One factor everywhere."""
    claim = block.built.case.claim
    scales = {claim.route_scale, claim.expected_sum() or 1.0} - {1.0}
    words = f"{off}: weights are {ratio:.4g} times what router and claim give, for all tokens and experts alike"
    for scale in scales:
        for value, what in (
            (scale, "is applied twice"),
            (1 / scale, "is not applied"),
            (1 / scale**2, "divides where it multiplies"),
        ):
            if abs(ratio - value) <= 1e-2 * value:
                return failed(f"{words}: the scale {scale:g} {what}", worst=worst, causes=(10,))
    hint = f"if that is meant, claim route_scale={ratio * claim.route_scale:.4g}"
    return failed(f"{words}; {hint}", worst=worst, causes=(10, 7))


def _holds(block: Block, x: Tensor, combine: Tensor, case: Case) -> bool:
    other = replace(block, built=replace(block.built, case=case))
    routed, made = block.output(x) - block.shared(x), other.expected(x, combine)
    return float(((routed - made).norm(dim=-1) / lengths(routed, made)).max()) <= TOLERANCE


def _turned(block: Block, weights: Tensor, combine: Tensor) -> bool:
    """Weights that fit the claim where the router's own return does not, in the same order: the block normalizes."""
    claim, met = block.built.case.claim, combine != 0
    said = claim.expected_sum()
    if said is None or claim.kind != "token_choice":
        return False
    fits = (weights.sum(1) / claim.route_scale - said).abs() <= TOLERANCE * said
    returned = (combine.sum(1) - said).abs() <= TOLERANCE * said
    order = [torch.where(met, w.double(), -torch.inf).argsort(dim=1, stable=True) for w in (weights, combine)]
    return bool(fits.all()) and not bool(returned.any()) and torch.equal(*order)


def _one_number(values: Tensor) -> bool:
    return len(values) > 1 and float(values.max() - values.min()) <= 10 * TOLERANCE * float(values.abs().mean())


def _relative(block: Block, x: Tensor) -> Finding:
    """With all experts equal, what each adds to a token is to what another adds as their weights."""
    if not block.reads_router:
        return unknown(f"neither a router that can be asked nor what one expert computes was found: {DECLARE}")
    combine, alike = block.routing(x).combine, equal_experts(block)
    shared = alike.shared(x)
    some = combine.abs().sum(0).topk(min(8, block.experts)).indices
    each = torch.eye(block.experts, dtype=torch.bool, device=x.device)[some]
    added = torch.stack([alike.output(x, keep) - shared for keep in each], dim=1)
    weight = combine[:, some].to(added.dtype).unsqueeze(-1)
    # cross products: no division by a weight of 0
    best = weight.abs().argmax(dim=1, keepdim=True)
    first, w_first = added.gather(1, best.expand(-1, -1, x.shape[1])), weight.gather(1, best)
    error = (added * w_first - first * weight).norm(dim=-1).amax(1) / lengths((first * w_first).squeeze(1))
    if float(error.max()) > TOLERANCE:
        words = f"with equal experts their shares are off the ratio of their weights by {float(error.max()):.2g}"
        return failed(words, worst=f"token {int(error.argmax())}", causes=(11, 7))
    return unknown(f"shares are in the ratio of the weights; the scale is open, for f_e was not found out: {DECLARE}")
