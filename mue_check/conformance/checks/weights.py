"""The sum of a token's weights, their sign, and the gate that they come from."""

from dataclasses import replace

from torch import Tensor

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import Check, CheckOutcome, failed, passed, skipped, unknown
from mue_check.conformance.checks.compare import NO_LOGITS, first_pair, first_token, is_activated
from mue_check.conformance.expected_routing import TOLERANCE, expected_weights, is_partial_softmax, usual_weights
from mue_check.conformance.reading import effective_routing, read_logits, route
from mue_check.conformance.router_probe import stir_vectors
from mue_check.errors import UnreadableError
from mue_check.routing.canonical import Routing


def weight_sum(case: ConformanceCase) -> CheckOutcome:
    """The weights of a token's active experts sum to the claimed value (1 under Complete-muE, where R = a)."""
    built, x = case.build(), case.tokens()
    outcome = sum_as_claimed(case, effective_routing(built, x))
    if outcome.status != "passed":
        return outcome
    again: list[tuple[str, CheckOutcome]] = []
    if case.is_router:
        again.append(("in training mode only", sum_as_claimed(case, route(case.build(train=True), x))))
    moved = stir_vectors(built)
    if moved:
        again.append((f"once training moves {', '.join(moved)}", sum_as_claimed(case, effective_routing(built, x))))
    for when, other in again:
        if other.status == "failed":
            causes = (32,) if when.startswith("once") else other.causes
            return replace(other, measured=f"{when}: {other.measured}", causes=causes)
    return outcome


def sum_as_claimed(case: ConformanceCase, routing: Routing) -> CheckOutcome:
    """Whether the weights of a routing sum to what the claim says."""
    claim, full = case.claim, complete_tokens(routing, case)
    expected = claim.expected_sum()
    every = routing.sums if claim.null_experts is None else routing.sums_with_nulls
    if claim.kind == "expert_choice" or expected is None:
        return skipped(f"the claim allows any sum; measured {_range(every)}")
    if not bool(full.any()):
        return skipped("no token kept all its experts")
    sums = every[full].detach()
    if claim.weight_sum == "groups":
        each = routing.combine.detach()[full].view(len(sums), claim.groups, -1).sum(-1)
        error = (each - 1).abs().amax(-1)
    else:
        error = (sums - expected).abs()
    worst = int(error.argmax())
    if float(error[worst]) <= TOLERANCE * expected:
        return passed(f"sums {_range(sums)}, claimed {expected:g}")
    if _is_unnormalized_top1(case, sums):
        return skipped(f"not normalized at a = 1, so the router keeps its gradient; sums {_range(sums)}")
    mean, constant = float(sums.mean()), _is_constant(sums)
    if constant and not case.candidate.claims:
        what = 'activated_scale = "router"' if is_activated(mean, case) else f"weight_sum = {mean:.4g}"
        return unknown(f"sums are a constant {mean:.4g}, and nothing is claimed: claim {what}")
    hint = f": a constant {mean:.4g}" if constant else f", mean {mean:.4g}"
    return failed(
        f"sums {_range(sums)}{hint}, claimed {expected:g} +- {TOLERANCE * expected:g}",
        worst=f"token {int(full.nonzero()[worst])}: {float(sums[worst]):.4g}",
        causes=(10, 7) if constant else (3, 4, 5),
    )


def weight_sign(case: ConformanceCase) -> CheckOutcome:
    """Weights are finite, never negative, and 0 for experts that were not selected."""
    routing = route(case.build(), case.tokens())
    weights = routing.combine.detach()
    if not bool(weights.isfinite().all()):
        return failed("a weight is not finite", worst=first_token(~weights.isfinite()))
    least, outside = float(weights.min()), weights.masked_fill(routing.mask, 0).abs()
    if not least >= -1e-6:
        return failed(f"the smallest weight is {least:.4g}", worst=first_pair(weights == least), causes=(5,))
    largest = float(outside.max())
    if largest > 0:
        measured = f"an expert that was not selected has weight {largest:.4g}"
        return failed(measured, worst=first_pair(outside == largest))
    selected = weights[routing.mask]
    low = float(selected.min()) if selected.numel() else 0.0  # the check load reports an empty selection
    return passed(f"weights in [{low:.3g}, {float(weights.max()):.3g}]")


def gate(case: ConformanceCase) -> CheckOutcome:
    """Weights are the claimed function of the logits, normalized as claimed."""
    claim = case.claim
    built, x = case.build(), case.tokens()
    try:
        routing, logits = route(built, x), read_logits(built, x)
    except UnreadableError:
        if claim.gate == "any":
            return skipped("no gate is claimed")
        raise
    logits = None if logits is None else logits.detach().double()
    measured = routing.combine.detach().double()
    reordered = "" if logits is None else _reordered(logits, routing, measured)
    if reordered:
        return failed(f"weights and experts are in different orders: as a set the weights are {reordered}")
    if claim.gate == "any":
        return skipped("no gate is claimed")
    if logits is None:
        return unknown(NO_LOGITS)
    full = complete_tokens(routing, case)
    if claim.weight_sum != "free" and bool(full.any()) and _is_unnormalized_top1(case, routing.sums[full].detach()):
        claim = replace(claim, weight_sum="free")
    expected = expected_weights(logits, routing, claim)
    if claim.kind != "expert_choice" and claim.weight_sum != "free":
        measured, expected = measured[full], expected[full]
    if claim.weight_sum == "free":
        # a free sum allows any constant factor
        expected = expected * (measured.sum() / expected.sum())
    error = (measured - expected).abs()
    if not error.numel() or float(error.max()) <= TOLERANCE * float(expected.max()):
        return passed(f"{claim.gate} of the logits, to {float(error.max()) if error.numel() else 0.0:.1g}")
    softmax_of_any = claim.gate == "softmax" and claim.order == "any" and claim.weight_sum == "free"
    if softmax_of_any and is_partial_softmax(logits, routing):
        return passed("each weight is a softmax of the logits over a part of the experts")
    token, expert = divmod(int(error.argmax()), error.shape[1])
    return failed(
        f"weights differ from {claim.gate} of the logits by up to {float(error.max()):.3g} (largest weight "
        f"{float(expected.max()):.3g}){_resembles(logits, routing)}",
        worst=f"token {token}, expert {expert}: {float(measured[token, expert]):.4g}, "
        f"expected {float(expected[token, expert]):.4g}",
        causes=(4, 7, 5),
    )


def complete_tokens(routing: Routing, case: ConformanceCase) -> Tensor:
    """[T] bool: the tokens that no expert dropped."""
    if case.claim.kind == "variable":
        mask = routing.mask if case.claim.null_experts is None else routing.mask_with_nulls
        return mask.any(-1)
    return routing.times.sum(-1) == case.shape.activated


def _is_constant(sums: Tensor) -> bool:
    return float(sums.max() - sums.min()) <= TOLERANCE * abs(float(sums.mean()))


def _is_unnormalized_top1(case: ConformanceCase, sums: Tensor) -> bool:
    """Whether a router that normalizes returns the plain score at a = 1, a size that nobody asked it to support."""
    required = case.chosen or case.claim.top_k is not None or case.claim.weight_sum == "groups"
    return case.shape.activated == 1 and not required and len(sums) > 1 and not _is_constant(sums)


def _resembles(logits: Tensor, routing: Routing) -> str:
    """Another usual gate that the weights agree with, in words."""
    measured = routing.combine.detach().double()
    raw = logits[:, : measured.shape[1]].masked_fill(~routing.mask, 0)
    if float((measured - raw).abs().max()) <= TOLERANCE * float(raw.abs().max()):
        return "; they are the logits themselves"
    for _, name, weights in usual_weights(logits, routing):
        if float((measured - weights).abs().max()) <= TOLERANCE * float(weights.max()):
            return f"; they are {name}"
    return ""


def _reordered(logits: Tensor, routing: Routing, measured: Tensor) -> str:
    """The usual gate whose weights these are except for their order within each token, in words."""
    for _, name, weights in usual_weights(logits, routing):
        scaled = weights * (measured.sum() / weights.sum())
        tolerance = TOLERANCE * float(scaled.abs().max())
        in_place = float((measured - scaled).abs().max())
        as_set = float((measured.sort(-1).values - scaled.sort(-1).values).abs().max())
        if as_set <= tolerance < in_place:
            return name
    return ""


def _range(sums: Tensor) -> str:
    low, high = float(sums.min()), float(sums.max())
    return f"{low:.4g}" if high - low < 1e-4 else f"{low:.4g} to {high:.4g}"


CHECKS = (
    Check(run=weight_sum, source="arXiv 2605.23893"),
    Check(run=weight_sign, source="arXiv 1701.06538"),
    Check(run=gate, source="arXiv 2605.23893 (sigmoid), 2401.04088 (softmax)"),
)
