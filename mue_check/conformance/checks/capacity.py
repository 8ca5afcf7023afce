"""Capacity: a bound that holds, and drops that are accounted for."""

from torch import nn

from mue_check.conformance.case import Built, Case
from mue_check.conformance.checks.compare import alike_tokens, difference
from mue_check.conformance.checks.selection import requested_of
from mue_check.conformance.registry import Finding, check, failed, passed, skipped

_LEAST = 4
"""Places that any expert may have (min_capacity in DeepSpeed)."""


@check(
    "capacity",
    law="no expert takes more than ceil(factor T a / E) tokens (or 4), and it drops some only when it is full",
    source="arXiv 2006.16668",
)
def capacity(case: Case) -> Finding:
    """Tokens that nearly agree overflow their experts."""
    factor, shape = case.claim.capacity_factor, case.shape
    if case.claim.kind != "capacity" or factor is None:
        return skipped("no capacity is claimed")
    places = max(-int(-factor * shape.tokens * shape.activated // shape.experts), _LEAST)
    built = case.build()
    for x, said in ((alike_tokens(built), "tokens that agree"), (case.tokens(), "tokens")):
        routing = built.route(x)
        loads = routing.load
        if int(loads.max()) > places:
            return failed(
                f"an expert takes {int(loads.max())} of {shape.tokens} {said}, at most {places} by the claim",
                worst=f"expert {int(loads.argmax())}",
                causes=(17,),
            )
        requested = requested_of(built, x, routing)
        if requested is None:
            continue
        if bool((routing.mask & ~requested).any()):
            token, expert = (int(i) for i in (routing.mask & ~requested).nonzero()[0])
            return failed(
                f"{int((routing.mask & ~requested).sum())} places go to tokens that did not ask for them",
                worst=f"token {token} at expert {expert}",
                causes=(18,),
            )
        dropped, full = (requested & ~routing.mask).sum(0), int(loads.max())
        least = min(int(factor * shape.tokens * shape.activated / shape.experts), shape.tokens)
        if bool(dropped.any()) and full < least:
            return failed(
                f"tokens are dropped with {full} places taken, where an expert has at least {least} by the claim: is "
                "the capacity that of a part of the batch?",
                worst=f"expert {int(dropped.argmax())}",
            )
        early = (dropped > 0) & (loads < full)
        if bool(early.any()):
            expert = int(early.nonzero()[0])
            return failed(
                f"expert {expert} drops {int(dropped[expert])} tokens with {int(loads[expert])} of {full} places taken",
                worst=f"expert {expert}",
                causes=(18, 17),
            )
    return passed(f"at most {places} places, and drops only from experts that are full")


@check(
    "capacity-dropless",
    law="with room for all, nothing is dropped",
    source="arXiv 2006.16668",
)
def capacity_dropless(case: Case) -> Finding:
    """Raise the module's capacity_factor."""
    if case.claim.kind != "capacity":
        return skipped("no capacity is claimed")
    built, x = case.build(), case.tokens()
    holders = _holders(built)
    if not holders:
        return skipped("the module has no attribute capacity_factor")
    plain = built.route(x)
    for holder in holders:
        holder.capacity_factor = 1e3  # type: ignore[assignment]
    routing = built.route(x)
    if bool((routing.times.sum(-1) != case.shape.activated).any()):
        missing = case.shape.tokens * case.shape.activated - int(routing.times.sum())
        return failed(f"{missing} places are missing with a capacity factor of 1000", causes=(18, 17))
    kept = (plain.mask == routing.mask).all(-1)
    apart = difference(plain.combine[kept], routing.combine[kept])
    if bool(kept.any()) and apart.real:
        return failed(f"tokens that were never dropped have other weights: {apart}", worst=f"token {apart.worst}")
    return passed("T a places, and the same weights where nothing was dropped")


def _holders(built: Built) -> list[nn.Module]:
    return [m for m in built.module.modules() if isinstance(getattr(m, "capacity_factor", None), int | float)]
