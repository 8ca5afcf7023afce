"""Which experts are chosen: as many as claimed, the best, within the groups, and moved by the bias alone."""

from dataclasses import replace

import torch
from torch import Tensor

from mue_check.conformance.case import Built, Case
from mue_check.conformance.checks.compare import NO_LOGITS, TOLERANCE, difference
from mue_check.conformance.registry import Finding, check, failed, passed, skipped, unknown
from mue_check.routing.canonical import Routing

_HEAVIER = 3.0
"""Times its usual largest weight, where a bias of 100 that reached the weights would give many times that."""
_MANY = 512
"""Tokens for questions about shares."""


@check(
    "load",
    law="each token takes just a different experts: T a places in all",
    source="arXiv 1701.06538",
)
def load(case: Case) -> Finding:
    """Count the places and their repetitions."""
    routing, shape = case.build().route(case.tokens()), case.shape
    repeated = (routing.times > 1).any(-1)
    if bool(repeated.any()):
        return failed("a token takes one expert more than once", worst=f"token {int(repeated.nonzero()[0])}")
    if case.claim.kind == "expert_choice":
        loads = routing.load
        if int(loads.min()) != int(loads.max()):
            return failed(f"experts take {int(loads.min())} to {int(loads.max())} tokens, all alike by the claim")
        return passed(f"each expert takes {int(loads[0])} tokens")
    taken = routing.times.sum(-1)
    if case.claim.kind == "variable":
        return passed(f"a token takes {int(taken.min())} to {int(taken.max())} experts")
    over = taken > shape.activated if case.claim.kind == "capacity" else taken != shape.activated
    if bool(over.any()):
        token = int(over.nonzero()[0])
        return failed(
            f"{int(taken.sum())} places for T a = {shape.tokens * shape.activated}",
            worst=f"token {token} takes {int(taken[token])} experts, not {shape.activated}",
            causes=(18,) if case.claim.kind == "capacity" else (),
        )
    return passed(f"{int(taken.sum())} places")


@check(
    "selection",
    law="the experts with the highest logits are chosen, within the groups that a token takes",
    source="arXiv 1701.06538",
)
def selection(case: Case) -> Finding:
    """Compare the choice with the top of the logits."""
    claim, k = case.claim, case.shape.activated
    if not claim.independent:
        return skipped("the choice is not a top a")
    built, x = case.build(), case.tokens()
    bias = selection_bias(built)
    if bias is not None and bool((bias != bias[0]).any()):
        return skipped("the selection bias is not constant at init")
    routing, logits = built.route(x), built.logits(x)
    masked = _masked(built, x, routing)
    if masked is not None:
        return masked
    if logits is None and claim.kind == "variable":
        return skipped("no logits [T, E] were seen")  # those of null experts may be among them
    if logits is None:
        return unknown(NO_LOGITS)
    if claim.group_limit is not None:
        # which groups are the best is the design's own matter; within those that are taken the best experts are
        grouped = routing.mask.view(len(x), claim.groups, -1)
        taken = grouped.any(-1, keepdim=True).expand_as(grouped).reshape(routing.mask.shape)
        logits = logits.masked_fill(~taken, -torch.inf)
    if claim.kind == "variable":
        best = _as_many(logits, routing.mask.sum(-1))
    else:
        best = top(logits, k, claim.groups if claim.per_group_k is not None else 1)
    apart = difference(routing.mask.float(), best.float())
    if apart.real:
        chosen, wanted = routing.mask[apart.worst].nonzero().flatten(), best[apart.worst].nonzero().flatten()
        return failed(
            f"{apart.differing} of {apart.tokens} tokens do not take their {best.sum(-1).max()} best experts",
            worst=f"token {apart.worst} takes {chosen.tolist()}, its best are {wanted.tolist()}",
        )
    return passed("the best of every token")


@check(
    "bias-selection",
    law="a selection bias moves the choice and never the weights; adding a constant to it changes nothing",
    source="arXiv 2408.15664",
)
def bias_selection(case: Case) -> Finding:
    """Draw the bias, shift it, and make it large."""
    built, x = case.build(), case.tokens()
    bias = selection_bias(built)
    if bias is None:
        return skipped("no selection bias")
    plain = built.route(x)
    drawn = torch.randn(bias.shape, generator=torch.Generator().manual_seed(case.seed)).to(bias)
    with torch.no_grad():
        bias.copy_(0.02 * drawn)
        small = built.route(x)
        bias.copy_(0.3 * drawn)
        moved = built.route(x)
        bias.copy_(0.3 * drawn + 2.0)
        up = built.route(x)
        bias.copy_(0.3 * drawn - 2.0)
        down = built.route(x)
        bias.zero_()
        bias[0] = 100.0
        large = built.route(x)
    kept = (plain.mask == small.mask).all(-1)
    apart = difference(plain.combine[kept], small.combine[kept])
    if apart.differing and bool(kept.any()):
        return failed(
            f"where the choice stays, weights move by up to {apart.largest:.3g} with a bias of up to "
            f"{float(0.02 * drawn.abs().max()):.2g}",
            worst=f"token {int(kept.nonzero()[apart.worst])}",
            causes=(6, 7),
        )
    for said, other in (("+2", up), ("-2", down)):
        shifted = difference(moved.combine, other.combine, tolerance=1e-3)
        if shifted.real:
            return failed(
                f"a constant {said} on every expert's bias changes the routing: {shifted}",
                worst=f"token {shifted.worst}",
                causes=(8, 6),
            )
    if not bool(large.mask[:, 0].all()):
        missed = int((~large.mask[:, 0]).sum())
        return failed(f"a bias of 100 on expert 0 leaves {missed} tokens that do not take it")
    heaviest = float(large.combine.detach().max())
    usual = max(float(plain.combine.detach().max()), case.claim.expected_sum() or 0.0)
    if not bool(large.combine.isfinite().all()) or heaviest > _HEAVIER * usual:
        return failed(f"a bias of 100 on expert 0 makes a weight of {heaviest:.4g}", causes=(6,))
    return passed("moves the choice alone, also shifted by 2 and at 100")


@check(
    "group-limit",
    law="experts come from as many groups as claimed, also where every score is negative",
    source="arXiv 2412.19437, 2505.21411",
)
def group_limit(case: Case) -> Finding:
    """Count groups per token, with scores as they are and shifted below 0."""
    claim = case.claim
    if claim.groups == 1 or (claim.group_limit is None and claim.per_group_k is None):
        return skipped("no groups are claimed")
    built, x = case.build(), case.tokens()
    plain = built.route(x).mask
    taken = plain.view(len(x), claim.groups, -1).sum(-1)
    if claim.per_group_k is not None:
        wrong, law = (taken != claim.per_group_k).any(-1), f"{claim.per_group_k} of each group"
    else:
        wrong, law = (taken > 0).sum(-1) > (claim.group_limit or 0), f"at most {claim.group_limit} groups"
    if bool(wrong.any()):
        token = int(wrong.nonzero()[0])
        return failed(
            f"{int(wrong.sum())} of {len(wrong)} tokens break {law}",
            worst=f"token {token} takes {taken[token].tolist()} per group",
            causes=(8,),
        )
    bias = selection_bias(built)
    if bias is None:
        return passed(law)
    with torch.no_grad():
        bias.sub_(3.0)
    apart = difference(plain.float(), built.route(x).mask.float())
    if apart.real:
        return failed(
            f"with every score below 0 other experts are chosen: {apart}", worst=f"token {apart.worst}", causes=(8,)
        )
    return passed(f"{law}, also with every score below 0")


@check(
    "group-infeasible",
    law="more activated experts than the allowed groups hold is refused",
    source="huggingface/transformers #48647",
    once=True,
)
def group_infeasible(case: Case) -> Finding:
    """Ask for one expert too many."""
    claim, shape = case.claim, case.shape
    if claim.group_limit is None or claim.group_limit == claim.groups or claim.top_k is not None:
        return skipped("no group limit is claimed that could be exceeded")
    room = claim.group_limit * shape.experts // claim.groups
    impossible = replace(case, shape=replace(shape, activated=room + 1))
    try:
        routing = impossible.build().route(case.tokens())
    except Exception as error:  # any refusal will do
        return passed(f"refused with {type(error).__name__}")
    groups = routing.mask.view(len(routing.mask), claim.groups, -1).any(-1).sum(-1)
    outside = (groups > claim.group_limit).float().mean()
    return failed(
        f"a = {room + 1} of {claim.group_limit} groups with {room} experts is routed without a word; "
        f"{float(outside):.0%} of the tokens leave their groups",
        causes=(9,),
    )


@check(
    "ties",
    law="equal logits still give a different experts, finite weights, and the same choice each time",
    source="padding tokens are all alike",
)
def ties(case: Case) -> Finding:
    """Route tokens of zeros."""
    built, x = case.build(), torch.zeros_like(case.tokens())
    case.learn()
    if case.found.layout is None and case.candidate.kind == "block":
        return skipped("tokens of zeros do not show the routing of a block whose router cannot be asked")
    first, second = built.route(x), built.route(x)
    if not bool(first.combine.isfinite().all()):
        return failed("tokens of zeros get weights that are not finite")
    if bool((first.times > 1).any()):
        return failed("tokens of zeros take one expert more than once")
    if case.claim.kind == "token_choice" and bool((first.times.sum(-1) != case.shape.activated).any()):
        return failed(f"tokens of zeros take {int(first.times.sum(-1).min())} experts, not {case.shape.activated}")
    if not torch.equal(first.mask, second.mask):
        return failed("tokens of zeros take other experts at a second call")
    return passed("tokens of zeros are routed like others")


@check(
    "load-at-init",
    law="at init the tokens spread over the experts: the effective number of experts is at least half of them",
    source="a router of zeros ties every logit",
)
def load_at_init(case: Case) -> Finding:
    """exp(entropy) of the load of many tokens."""
    if case.claim.kind == "expert_choice" or case.shape.activated == case.shape.experts:
        return skipped("the load is even by design")
    # an even load of few tokens would leave half of very many experts without one
    many = max(_MANY, 4 * case.shape.experts // case.shape.activated)
    routing = case.build().route(case.tokens(3, count=many))
    share = (routing.requested if routing.requested is not None else routing.mask).double().mean(0)
    share = share / share.sum()
    effective = float(torch.exp(-(share * share.clamp_min(1e-300).log()).sum()))
    sets = len(torch.unique(routing.mask, dim=0))
    said = f"{effective:.1f} effective experts of {case.shape.experts}, {sets} different choices of {many} tokens"
    # capacity hides a collapse: what is dropped goes nowhere
    places = many * case.shape.activated
    dropped = 0.0 if case.claim.kind == "variable" else 1 - float(routing.times.sum()) / places
    if effective < case.shape.experts / 2 or sets == 1 or dropped > 0.5:
        return failed(
            said, worst=f"expert {int(share.argmax())} takes {float(share.max()):.0%} of all places", causes=(28,)
        )
    return passed(said)


def _masked(built: Built, x: Tensor, routing: Routing) -> Finding | None:
    """A failure where some of the logits that are returned, and not all, are those that the gate was given."""
    given, returned = built.gate_logits(x), routing.logits
    if given is None or returned is None:
        return None
    other = (returned - given).abs() > TOLERANCE * given.abs().max()
    if not bool(other.any()) or bool(other.all(-1).any()):
        return None
    token, expert = (int(i) for i in other.nonzero()[0])
    return failed(
        f"of the logits that it returns {int(other.sum())} of {other.numel()} are not those that its gate was given, "
        "as after a masking in place: a loss of them sees other numbers than the router",
        worst=f"token {token} at expert {expert}: {float(returned[token, expert]):.4g}, given "
        f"{float(given[token, expert]):.4g}",
    )


def _as_many(logits: Tensor, counts: Tensor) -> Tensor:
    """[T, E] bool: the best of each token, as many as it takes."""
    rank = logits.detach().argsort(dim=-1, descending=True).argsort(dim=-1)
    return rank < counts.unsqueeze(-1)


def top(logits: Tensor, k: int, groups: int = 1) -> Tensor:
    """[T, E] bool: the k best of each token, k / groups of each group."""
    grouped = logits.detach().view(len(logits), groups, -1)
    best = grouped.topk(k // groups, dim=-1).indices
    return torch.zeros_like(grouped, dtype=torch.bool).scatter(-1, best, True).flatten(-2)


def selection_bias(built: Built) -> Tensor | None:
    """The bias that the claim names, or the one buffer [E] of the router with "bias" in its name."""
    name, size = built.case.claim.selection_bias, (built.case.shape.experts,)
    everything = dict(built.module.named_buffers()) | dict(built.module.named_parameters())
    if name is not None:
        found = [t for n, t in everything.items() if n == name or n.endswith(f".{name}")]
        if not found:
            raise LookupError(f"the claim names the selection bias {name!r}; there are {', '.join(everything)}")
        return found[0]
    # a linear layer's bias is trained; this one is not, or has DeepSeek's name
    found = [
        t
        for n, t in everything.items()
        if "bias" in n and t.shape == size and t.is_floating_point() and (not t.requires_grad or "correction" in n)
    ]
    return found[0] if len(found) == 1 else None


def requested_of(built: Built, x: Tensor, routing: Routing) -> Tensor | None:
    """[T, E] bool: what tokens asked for before any was dropped; None where it cannot be known."""
    if routing.requested is not None:
        return routing.requested
    logits = built.logits(x)
    return None if logits is None else top(logits, built.case.shape.activated)
