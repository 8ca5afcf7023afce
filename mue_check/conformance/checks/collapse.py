"""Tokens must not all take the same experts at init, and ties must be broken well."""

import torch

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import Check, CheckOutcome, failed, passed, skipped
from mue_check.conformance.reading import route
from mue_check.conformance.router_probe import layout_of

_MANY = 512
"""Tokens for measuring shares."""


def ties(case: ConformanceCase) -> CheckOutcome:
    """Equal logits still give a different experts, finite weights, and the same selection each time."""
    built, x = case.build(), torch.zeros_like(case.tokens())
    if layout_of(case) is None and not case.is_router:
        return skipped("tokens of zeros do not show the routing of a block whose router cannot be read")
    first, second = route(built, x), route(built, x)
    if not bool(first.combine.isfinite().all()):
        return failed("tokens of zeros get weights that are not finite")
    if bool((first.times > 1).any()):
        return failed("tokens of zeros take one expert more than once")
    if case.claim.kind == "token_choice" and bool((first.times.sum(-1) != case.shape.activated).any()):
        fewest = int(first.times.sum(-1).min())
        return failed(f"tokens of zeros take {fewest} experts, expected {case.shape.activated}")
    if not torch.equal(first.mask, second.mask):
        return failed("tokens of zeros take other experts in a second call")
    return passed("tokens of zeros are routed like others")


def load_at_init(case: ConformanceCase) -> CheckOutcome:
    """At init the tokens spread over the experts: the effective number of experts is at least E / 2.

    The effective number is exp(entropy of the load).
    """
    shape = case.shape
    if case.claim.kind == "expert_choice" or shape.activated == shape.experts:
        return skipped("the load is even by design")
    # few tokens would leave half of very many experts without one, even with an even load
    many = max(_MANY, 4 * shape.experts // shape.activated)
    routing = route(case.build(), case.tokens(3, count=many))
    if bool(routing.mask.all()):
        return skipped("every token takes every expert")
    share = (routing.requested if routing.requested is not None else routing.mask).double().mean(0)
    share = share / share.sum()
    effective = float(torch.exp(-(share * share.clamp_min(1e-300).log()).sum()))
    selections = len(torch.unique(routing.mask, dim=0))
    measured = (
        f"{effective:.1f} effective experts of {shape.experts}, {selections} different selections of {many} tokens"
    )
    # capacity hides a collapse, because dropped tokens count nowhere
    dropped = 0.0 if case.claim.kind == "variable" else 1 - float(routing.times.sum()) / (many * shape.activated)
    if effective < shape.experts / 2 or selections == 1 or dropped > 0.5:
        worst = f"expert {int(share.argmax())} takes {float(share.max()):.0%} of all places"
        return failed(measured, worst=worst, causes=(28,))
    return passed(measured)


CHECKS = (
    Check(run=ties, source="padding tokens are all equal"),
    Check(run=load_at_init, source="a zero-initialized router ties every logit"),
)
