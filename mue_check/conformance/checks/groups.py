"""Groups of experts: as many as claimed, and an error where they cannot hold the activated experts."""

from dataclasses import replace

import torch
from torch import Tensor

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import Check, CheckOutcome, failed, passed, skipped, unknown
from mue_check.conformance.checks.compare import NO_LOGITS, difference
from mue_check.conformance.checks.selection import has_uneven_bias
from mue_check.conformance.reading import read_logits, route
from mue_check.conformance.router_probe import selection_bias
from mue_check.routing.claim import RoutingSpec

_MANY = 512
"""Tokens: few show a group that is beaten."""
_UNLIMITED = "no limit on groups is claimed"
_RANKS = {"max": "their best score", "top2_sum": "the sum of their two best scores"}


def group_limit(case: ConformanceCase) -> CheckOutcome:
    """Experts come from as many groups as claimed, even if every score is negative."""
    if _is_unlimited(case.claim):
        return skipped(_UNLIMITED)
    built, x = case.build(), case.tokens()
    plain = route(built, x).mask
    outcome = within_limit(case, plain)
    bias = selection_bias(built)
    if bias is None or outcome.status != "passed":
        return outcome
    rule = outcome.measured
    with torch.no_grad():
        bias[1].sub_(3.0)
    found = difference(plain.float(), route(built, x).mask.float())
    if found.significant:
        return failed(
            f"with every score below 0 other experts are selected: {found}", worst=f"token {found.worst}", causes=(8,)
        )
    return passed(f"{rule}, also with every score below 0")


def within_limit(case: ConformanceCase, mask: Tensor) -> CheckOutcome:
    """Whether a selection [T, E] keeps the claimed limit on groups."""
    claim = case.claim
    if _is_unlimited(claim):
        return skipped(_UNLIMITED)
    taken = mask.view(len(mask), claim.groups, -1).sum(-1)
    if claim.per_group_k is not None:
        wrong, rule = (taken != claim.per_group_k).any(-1), f"{claim.per_group_k} of each group"
    else:
        wrong, rule = (taken > 0).sum(-1) > (claim.group_limit or 0), f"at most {claim.group_limit} groups"
    if not bool(wrong.any()):
        return passed(rule)
    token = int(wrong.nonzero()[0])
    return failed(
        f"{int(wrong.sum())} of {len(wrong)} tokens break {rule}",
        worst=f"token {token} takes {taken[token].tolist()} per group",
        causes=(8,),
    )


def group_rank(case: ConformanceCase) -> CheckOutcome:
    """Tokens use the groups that rank best: as claimed, or else by any rank that grows with each score."""
    claim = case.claim
    if claim.group_limit in (None, claim.groups):
        return skipped(_UNLIMITED)
    built, x = case.build(), case.tokens(count=_MANY)
    if has_uneven_bias(built):
        return skipped("the selection bias is not constant at init")
    routing, logits = route(built, x), read_logits(built, x)
    if logits is None:
        return unknown(NO_LOGITS)
    grouped = logits.detach().double().view(len(x), claim.groups, -1)
    used = routing.mask.view(grouped.shape).any(-1)
    if claim.group_rank is None:
        # in its best score, its second best and so on; were it kept, its best expert would be selected
        ordered = grouped.sort(-1, descending=True).values
        beats = (ordered.unsqueeze(2) > ordered.unsqueeze(1)).all(-1)
        wrong = (beats & ~used.unsqueeze(2) & used.unsqueeze(1)).any(-1).any(-1)
        rule = "another one that is better in each score"
    else:
        gates = ["sigmoid", "softmax"] if claim.gate == "any" else [claim.gate]
        wrong = torch.stack([_out_of_rank(grouped, used, gate, claim) for gate in gates]).all(0)
        rule = f"{claim.group_limit} that are better by {_RANKS[claim.group_rank]}"
    if int(wrong.sum()) <= 1:  # a tie
        return passed("the groups that rank best")
    token = int(wrong.nonzero()[0])
    return failed(
        f"{int(wrong.sum())} of {len(wrong)} tokens take experts of a group and not of {rule}",
        worst=f"token {token} takes experts of the groups {used[token].nonzero().flatten().tolist()}",
        causes=(34,),
    )


def _is_unlimited(claim: RoutingSpec) -> bool:
    return claim.groups == 1 or (claim.group_limit is None and claim.per_group_k is None)


def _out_of_rank(grouped: Tensor, used: Tensor, gate: str, claim: RoutingSpec) -> Tensor:
    """[T] bool: a group is used that is not among the best by the claimed rank of these logits [T, G, E / G]."""
    scores = grouped.flatten(1).softmax(-1).view_as(grouped) if gate == "softmax" else grouped.sigmoid()
    rank = scores.topk(1 if claim.group_rank == "max" else 2, dim=-1).values.sum(-1)
    least = rank.topk(claim.group_limit or 1, dim=-1).values[:, -1:]
    return (used & (rank < least * (1 - 1e-6))).any(-1)


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
    Check(run=group_rank, source="arXiv 2405.04434 (max), 2412.19437 (top-2 sum)", since="0.4", once=True),
    Check(run=group_infeasible, source="huggingface/transformers #48647", once=True),
)
