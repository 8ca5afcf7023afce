"""Capacity: a limit that is enforced, and tokens that are dropped only when it is reached."""

from torch import Tensor, nn

from mue_check.conformance.case import BuiltCandidate, ConformanceCase
from mue_check.conformance.check import Check, CheckOutcome, failed, passed, skipped
from mue_check.conformance.checks.compare import difference, first_pair, similar_tokens
from mue_check.conformance.expected_routing import top_experts
from mue_check.conformance.reading import read_logits, route
from mue_check.routing.canonical import Routing

_LEAST = 4
"""Places that any expert may have (min_capacity in DeepSpeed)."""


def capacity(case: ConformanceCase) -> CheckOutcome:
    """No expert takes more than ceil(factor T a / E) tokens (or 4), and it drops tokens only when it is full."""
    factor, shape = case.claim.capacity_factor, case.shape
    if case.claim.kind != "capacity" or factor is None:
        return skipped("no capacity is claimed")
    places = max(-int(-factor * shape.tokens * shape.activated // shape.experts), _LEAST)
    least = min(int(factor * shape.tokens * shape.activated / shape.experts), shape.tokens)
    built = case.build()
    for x, kind in ((similar_tokens(case), "similar tokens"), (case.tokens(), "tokens")):
        routing = route(built, x)
        load = routing.load
        if int(load.max()) > places:
            return failed(
                f"an expert takes {int(load.max())} of {shape.tokens} {kind}, at most {places} by the claim",
                worst=f"expert {int(load.argmax())}",
                causes=(17,),
            )
        requested = _requested(built, x, routing)
        if requested is None:
            continue
        unrequested = routing.mask & ~requested
        if bool(unrequested.any()):
            measured = f"{int(unrequested.sum())} places go to tokens that did not request them"
            return failed(measured, worst=first_pair(unrequested), causes=(18,))
        dropped, full = (requested & ~routing.mask).sum(0), int(load.max())
        if bool(dropped.any()) and full < least:
            return failed(
                f"tokens are dropped with {full} places taken; by the claim an expert has at least {least}: is the "
                "capacity computed for a part of the batch?",
                worst=f"expert {int(dropped.argmax())}",
            )
        early = (dropped > 0) & (load < full)
        if bool(early.any()):
            expert = int(early.nonzero()[0])
            return failed(
                f"expert {expert} drops {int(dropped[expert])} tokens with {int(load[expert])} of {full} places taken",
                worst=f"expert {expert}",
                causes=(18, 17),
            )
    return passed(f"at most {places} places, and only full experts drop tokens")


def _requested(built: BuiltCandidate, x: Tensor, routing: Routing) -> Tensor | None:
    """[T, E] bool: what tokens requested before any was dropped; None if that is unknown."""
    if routing.requested is not None:
        return routing.requested
    logits = read_logits(built, x)
    return None if logits is None else top_experts(logits, built.case.shape.activated)


def capacity_dropless(case: ConformanceCase) -> CheckOutcome:
    """With room for all tokens, none is dropped."""
    if case.claim.kind != "capacity":
        return skipped("no capacity is claimed")
    built, x = case.build(), case.tokens()
    holders: list[nn.Module] = [
        m for m in built.module.modules() if isinstance(getattr(m, "capacity_factor", None), int | float)
    ]
    if not holders:
        return skipped("the module has no attribute capacity_factor")
    plain = route(built, x)
    for holder in holders:
        holder.capacity_factor = 1e3  # type: ignore[assignment]
    routing = route(built, x)
    if bool((routing.times.sum(-1) != case.shape.activated).any()):
        missing = case.shape.tokens * case.shape.activated - int(routing.times.sum())
        return failed(f"{missing} places are missing with a capacity factor of 1000", causes=(18, 17))
    kept = (plain.mask == routing.mask).all(-1)
    found = difference(plain.combine[kept], routing.combine[kept])
    if bool(kept.any()) and found.significant:
        return failed(f"tokens that were never dropped have other weights: {found}", worst=f"token {found.worst}")
    return passed("T a places, and the same weights where nothing was dropped")


CHECKS = (
    Check(run=capacity, source="arXiv 2006.16668"),
    Check(run=capacity_dropless, source="arXiv 2006.16668"),
)
