"""Groups of experts: as many as claimed, and an error where they cannot hold the activated experts."""

from dataclasses import replace

import torch

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import Check, CheckOutcome, failed, passed, skipped
from mue_check.conformance.checks.compare import difference
from mue_check.conformance.reading import route
from mue_check.conformance.router_probe import selection_bias


def group_limit(case: ConformanceCase) -> CheckOutcome:
    """Experts come from as many groups as claimed, even if every score is negative."""
    claim = case.claim
    if claim.groups == 1 or (claim.group_limit is None and claim.per_group_k is None):
        return skipped("no limit on groups is claimed")
    built, x = case.build(), case.tokens()
    plain = route(built, x).mask
    taken = plain.view(len(x), claim.groups, -1).sum(-1)
    if claim.per_group_k is not None:
        wrong, rule = (taken != claim.per_group_k).any(-1), f"{claim.per_group_k} of each group"
    else:
        wrong, rule = (taken > 0).sum(-1) > (claim.group_limit or 0), f"at most {claim.group_limit} groups"
    if bool(wrong.any()):
        token = int(wrong.nonzero()[0])
        return failed(
            f"{int(wrong.sum())} of {len(wrong)} tokens break {rule}",
            worst=f"token {token} takes {taken[token].tolist()} per group",
            causes=(8,),
        )
    bias = selection_bias(built)
    if bias is None:
        return passed(rule)
    with torch.no_grad():
        bias.sub_(3.0)
    found = difference(plain.float(), route(built, x).mask.float())
    if found.significant:
        return failed(
            f"with every score below 0 other experts are selected: {found}", worst=f"token {found.worst}", causes=(8,)
        )
    return passed(f"{rule}, also with every score below 0")


def group_infeasible(case: ConformanceCase) -> CheckOutcome:
    """Activating more experts than the allowed groups hold raises an error."""
    claim, shape = case.claim, case.shape
    if claim.group_limit is None or claim.group_limit == claim.groups or claim.top_k is not None:
        return skipped("no group limit is claimed that could be exceeded")
    room = claim.group_limit * shape.experts // claim.groups
    impossible = replace(case, shape=replace(shape, activated=room + 1))
    try:
        routing = route(impossible.build(), case.tokens())
    except Exception as error:  # any error will do
        return passed(f"raises {type(error).__name__}")
    groups = routing.mask.view(len(routing.mask), claim.groups, -1).any(-1).sum(-1)
    outside = (groups > claim.group_limit).float().mean()
    return failed(
        f"a = {room + 1} with {claim.group_limit} groups of {room} experts in all raises no error; "
        f"{float(outside):.0%} of the tokens leave their groups",
        causes=(9,),
    )


CHECKS = (
    Check(run=group_limit, source="arXiv 2412.19437, 2505.21411"),
    Check(run=group_infeasible, source="huggingface/transformers #48647", once=True),
)
