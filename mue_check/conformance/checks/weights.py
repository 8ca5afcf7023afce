"""What the weights sum to, their sign, and the gate that they come from."""

import torch
from torch import Tensor

from mue_check.conformance.case import Case
from mue_check.conformance.claim import RoutingSpec
from mue_check.conformance.registry import Finding, check, failed, passed, skipped, unknown
from mue_check.conformance.routing import Routing

_TOLERANCE = 1e-3


@check(
    "weight-sum",
    law="a token's active weights sum to what is claimed (1 for Complete-muE, so that R = a is their scale)",
    source="arXiv 2605.23893",
)
def weight_sum(case: Case) -> Finding:
    """Sum over the experts of each token."""
    claim = case.claim
    routing = case.build().acting(case.tokens())
    full = routing.times.sum(-1) == case.shape.activated
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
    mean = float(sums.mean())
    constant = float(sums.max() - sums.min()) <= _TOLERANCE * abs(mean)
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
    return passed(f"weights in [{float(weights[routing.mask].min()):.3g}, {float(weights.max()):.3g}]")


@check(
    "gate",
    law="weights are the claimed function of the logits, normalized as claimed",
    source="arXiv 2605.23893 (sigmoid), 2401.04088 (softmax)",
)
def gate(case: Case) -> Finding:
    """Recompute the weights of the chosen experts from the logits."""
    claim = case.claim
    if claim.gate == "any":
        return skipped("no gate is claimed")
    built, x = case.build(), case.tokens()
    routing, logits = built.route(x), built.logits(x)
    if logits is None:
        return unknown("the router returns no logits and has no single [E, d] weight to compute them from")
    expected = gated(logits.detach().double(), routing, claim)
    found, kept = routing.combine.detach().double(), routing.times.sum(-1) == case.shape.activated
    rows = torch.ones_like(kept) if claim.kind == "expert_choice" or claim.weight_sum == "free" else kept
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
    claims: dict[str, RoutingSpec] = {
        "a normalized sigmoid": RoutingSpec(gate="sigmoid"),
        "a sigmoid that is not normalized": RoutingSpec(gate="sigmoid", weight_sum="free"),
        "a normalized softmax": RoutingSpec(gate="softmax"),
        "a softmax that is not normalized": RoutingSpec(gate="softmax", weight_sum="free"),
    }
    for said, other in claims.items():
        weights = gated(logits, routing, other)
        if float((found - weights).abs().max()) <= _TOLERANCE * float(weights.max()):
            return f"; they are {said}"
    return ""


def _range(sums: Tensor) -> str:
    low, high = float(sums.min()), float(sums.max())
    return f"{low:.4g}" if high - low < 1e-4 else f"{low:.4g} to {high:.4g}"
