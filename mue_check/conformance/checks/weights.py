"""What the weights sum to, their sign, and the gate that they come from."""

from dataclasses import replace

import torch
from torch import Tensor

from mue_check.conformance.case import Case
from mue_check.conformance.checks.compare import NO_LOGITS
from mue_check.conformance.registry import Finding, check, failed, passed, skipped, unknown
from mue_check.errors import UnreadableError
from mue_check.routing.canonical import Routing
from mue_check.routing.claim import RoutingSpec

_TOLERANCE = 1e-3
_USUAL: dict[str, RoutingSpec] = {
    "a normalized sigmoid": RoutingSpec(gate="sigmoid"),
    "a sigmoid that is not normalized": RoutingSpec(gate="sigmoid", weight_sum="free"),
    "a normalized softmax": RoutingSpec(gate="softmax"),
    "a softmax that is not normalized": RoutingSpec(gate="softmax", weight_sum="free"),
}


@check(
    "weight-sum",
    law="a token's active weights sum to what is claimed (1 for Complete-muE, so that R = a is their scale)",
    source="arXiv 2605.23893",
)
def weight_sum(case: Case) -> Finding:
    """Sum over the experts of each token, a router's in training mode too."""
    finding = _summed(case, case.build().acting(case.tokens()))
    if finding.status == "passed" and case.candidate.kind == "router":
        training = _summed(case, case.build(train=True).route(case.tokens()))
        if training.status == "failed":
            return replace(training, measured=f"in training mode alone: {training.measured}")
    return finding


def _summed(case: Case, routing: Routing) -> Finding:
    claim = case.claim
    full = kept(routing, case)
    if claim.kind == "expert_choice" or claim.weight_sum == "free":
        return skipped(f"any sum is claimed; measured {_range(routing.sums)}")
    if not bool(full.any()):
        return skipped("no token kept all its experts")
    expected = claim.expected_sum()
    assert expected is not None
    sums = routing.sums[full].detach()
    if claim.weight_sum == "groups":
        each = routing.combine.detach()[full].view(len(sums), claim.groups, -1).sum(-1)
        apart = (each - 1).abs().amax(-1)
    else:
        apart = (sums - expected).abs()
    worst = int(apart.argmax())
    if float(apart[worst]) <= _TOLERANCE * expected:
        return passed(f"sums {_range(sums)}, claimed {expected:g}")
    if _bare(case, sums):
        return skipped(f"not normalized at a = 1, which leaves the router its gradient; sums {_range(sums)}")
    mean = float(sums.mean())
    constant = _constant(sums)
    hint = f": a constant {mean:.4g}" if constant else f", mean {mean:.4g}"
    token = int(full.nonzero()[worst])
    return failed(
        f"sums {_range(sums)}{hint}, claimed {expected:g} +- {_TOLERANCE * expected:g}",
        worst=f"token {token}: {float(sums[worst]):.4g}",
        causes=(10, 7) if constant else (3, 4, 5),
    )


@check(
    "weight-sign",
    law="weights are finite, at least 0, and 0 for experts that were not chosen",
    source="arXiv 1701.06538",
)
def weight_sign(case: Case) -> Finding:
    """The least weight, and any weight outside the choice."""
    routing = case.build().route(case.tokens())
    weights = routing.combine.detach()
    if not bool(weights.isfinite().all()):
        token = int((~weights.isfinite()).any(-1).nonzero()[0])
        return failed("a weight is not finite", worst=f"token {token}")
    least = weights.min()
    if not float(least) >= -1e-6:
        token, expert = divmod(int(weights.argmin()), weights.shape[1])
        return failed(f"the least weight is {float(least):.4g}", worst=f"token {token} at expert {expert}", causes=(5,))
    outside = weights.masked_fill(routing.mask, 0).abs()
    if float(outside.max()) > 0:
        token, expert = divmod(int(outside.argmax()), weights.shape[1])
        return failed(
            f"an expert that was not chosen has weight {float(outside.max()):.4g}",
            worst=f"token {token} at expert {expert}",
        )
    given = weights[routing.mask]
    low = float(given.min()) if given.numel() else 0.0  # whether anything was given is for load to say
    return passed(f"weights in [{low:.3g}, {float(weights.max()):.3g}]")


@check(
    "gate",
    law="weights are the claimed function of the logits, normalized as claimed",
    source="arXiv 2605.23893 (sigmoid), 2401.04088 (softmax)",
)
def gate(case: Case) -> Finding:
    """Recompute the weights of the chosen experts from the logits."""
    claim = case.claim
    built, x = case.build(), case.tokens()
    try:
        routing, logits = built.route(x), built.logits(x)
    except UnreadableError:
        if claim.gate == "any":
            return skipped("no gate is claimed")
        raise
    misplaced = "" if logits is None else _misplaced(logits.detach().double(), routing)
    if misplaced:
        return failed(f"weights and experts are in different orders: {misplaced}, each at another expert than its own")
    if claim.gate == "any":
        return skipped("no gate is claimed")
    if logits is None:
        return unknown(NO_LOGITS)
    found, rows = routing.combine.detach().double(), kept(routing, case)
    if claim.weight_sum != "free" and bool(rows.any()) and _bare(case, routing.sums[rows].detach()):
        claim = replace(claim, weight_sum="free")
    expected = gated(logits.detach().double(), routing, claim)
    rows = torch.ones_like(rows) if claim.kind == "expert_choice" or claim.weight_sum == "free" else rows
    found, expected = found[rows], expected[rows]
    if claim.weight_sum == "free":
        # any constant factor is claimed with it
        expected = expected * (found.sum() / expected.sum())
    apart = (found - expected).abs()
    if not apart.numel() or float(apart.max()) <= _TOLERANCE * float(expected.max()):
        return passed(f"{claim.gate} of the logits, to {float(apart.max()) if apart.numel() else 0.0:.1g}")
    token, expert = divmod(int(apart.argmax()), apart.shape[1])
    is_, should = float(found[token, expert]), float(expected[token, expert])
    return failed(
        f"weights differ from {claim.gate} of the logits by up to {float(apart.max()):.3g} (largest weight "
        f"{float(expected.max()):.3g}){_resembles(logits.detach().double(), routing, claim)}",
        worst=f"token {token} at expert {expert}: {is_:.4g}, not {should:.4g}",
        causes=(4, 7, 5),
    )


def kept(routing: Routing, case: Case) -> Tensor:
    """[T] bool: tokens that none of their experts has dropped."""
    taken = routing.times.sum(-1)
    return taken > 0 if case.claim.kind == "variable" else taken == case.shape.activated


def _constant(sums: Tensor) -> bool:
    return float(sums.max() - sums.min()) <= _TOLERANCE * abs(float(sums.mean()))


def _bare(case: Case, sums: Tensor) -> bool:
    """Whether a router that normalizes gives the score as it is at a = 1, a size that was not asked of it."""
    asked = case.chosen or case.claim.top_k is not None or case.claim.weight_sum == "groups"
    return case.shape.activated == 1 and not asked and len(sums) > 1 and not _constant(sums)


def gated(logits: Tensor, routing: Routing, claim: RoutingSpec) -> Tensor:
    """[T, E] weights of the experts that were chosen, by the claim's gate, order and sum."""
    mask = routing.mask
    over = logits.masked_fill(~mask, -torch.inf) if claim.order == "select_first" else logits
    scores = over.softmax(-1) if claim.gate == "softmax" else torch.sigmoid(over)
    scores = scores.masked_fill(~mask, 0)
    if claim.weight_sum == "free":
        return scores
    if claim.weight_sum == "groups":
        grouped = scores.view(len(scores), claim.groups, -1)
        return (grouped / grouped.sum(-1, keepdim=True).clamp_min(1e-300)).view_as(scores)
    expected = claim.expected_sum()
    assert expected is not None
    return expected * scores / scores.sum(-1, keepdim=True).clamp_min(1e-300)


def _resembles(logits: Tensor, routing: Routing, claim: RoutingSpec) -> str:
    """Which other gate the weights agree with, in words."""
    found = routing.combine.detach().double()
    raw = logits.masked_fill(~routing.mask, 0)
    if float((found - raw).abs().max()) <= _TOLERANCE * float(raw.abs().max()):
        return "; they are the logits themselves"
    for said, other in _USUAL.items():
        weights = gated(logits, routing, other)
        if float((found - weights).abs().max()) <= _TOLERANCE * float(weights.max()):
            return f"; they are {said}"
    return ""


def _misplaced(logits: Tensor, routing: Routing) -> str:
    """The usual gate whose weights these are but for their order within each token, in words."""
    found = routing.combine.detach().double()
    for said, other in _USUAL.items():
        weights = gated(logits, routing, other)
        weights = weights * (found.sum() / weights.sum())
        size = _TOLERANCE * float(weights.abs().max())
        apart = [(found - weights).abs(), (found.sort(-1).values - weights.sort(-1).values).abs()]
        if float(apart[1].max()) <= size < float(apart[0].max()):
            return f"as a set they are {said}"
    return ""


def _range(sums: Tensor) -> str:
    low, high = float(sums.min()), float(sums.max())
    return f"{low:.4g}" if high - low < 1e-4 else f"{low:.4g} to {high:.4g}"
