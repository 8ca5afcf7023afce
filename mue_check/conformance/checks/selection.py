"""Which experts are selected: as many as claimed, the best ones, changed by the selection bias alone."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from mue_check.conformance.case import BuiltCandidate, ConformanceCase
from mue_check.conformance.check import Check, CheckOutcome, failed, passed, skipped, unknown
from mue_check.conformance.checks.compare import NO_LOGITS, TOLERANCE, difference, first_token
from mue_check.conformance.expected_routing import best_experts, top_experts
from mue_check.conformance.logits import gate_logits
from mue_check.conformance.reading import read_logits, route
from mue_check.conformance.router_probe import selection_bias
from mue_check.conformance.torch_calls import without_noise
from mue_check.routing.canonical import Routing

_ROUNDING = 2**-6
"""What bfloat16 scores may be off by, in logits and relative to the largest: such a choice says nothing of groups."""

_HEAVIER = 3.0
"""Largest allowed weight relative to the usual largest; a bias of 100 in the weights would give far more."""


def load(case: ConformanceCase) -> CheckOutcome:
    """Each token takes exactly a different experts: T a places in all."""
    routing, shape = route(case.build(), case.tokens()), case.shape
    repeated = routing.times > 1
    if bool(repeated.any()):
        return failed("a token takes one expert more than once", worst=first_token(repeated))
    if case.claim.kind == "expert_choice":
        loads = routing.load
        if int(loads.min()) != int(loads.max()):
            return failed(f"experts take {int(loads.min())} to {int(loads.max())} tokens; the claim says equally many")
        return passed(f"each expert takes {int(loads[0])} tokens")
    taken = routing.times.sum(-1)
    if case.claim.null_experts is not None and routing.null_times is not None:
        taken = taken + routing.null_times.sum(-1)
    elif case.claim.kind == "variable":
        return passed(f"a token takes {int(taken.min())} to {int(taken.max())} experts")
    wrong = taken > shape.activated if case.claim.kind == "capacity" else taken != shape.activated
    if bool(wrong.any()):
        token, low, high = int(wrong.nonzero()[0]), int(taken.min()), int(taken.max())
        return failed(
            f"a token takes {low if low == high else f'{low} to {high}'} experts, top_k is {shape.activated}",
            worst=f"token {token} takes {int(taken[token])} experts, expected {shape.activated}",
            causes=(18,) if case.claim.kind == "capacity" else (),
        )
    return passed(f"{int(taken.sum())} places")


def selection(case: ConformanceCase) -> CheckOutcome:
    """The experts with the highest logits are selected, within the groups that a token uses."""
    claim = case.claim
    if not claim.independent:
        return skipped("the selection is not a top-a of each token")
    built, x = case.build(), case.tokens()
    if has_uneven_bias(built):
        return skipped("the selection bias is not constant at init")
    routing, logits = route(built, x), read_logits(built, x)
    masked = _masked_in_place(built, x, routing)
    if masked is not None:
        return masked
    if logits is None:  # those of null experts may be among them
        return skipped("no logits [T, E] are visible") if claim.kind == "variable" else unknown(NO_LOGITS)
    return takes_best(case, routing, logits.detach())


def has_uneven_bias(built: BuiltCandidate) -> bool:
    """Whether a selection bias prefers some experts already at init."""
    bias = selection_bias(built)
    return bias is not None and bool((bias[1] != bias[1][0]).any())


def takes_best(case: ConformanceCase, routing: Routing, logits: Tensor) -> CheckOutcome:
    """Whether tokens take the experts with the highest of these logits [T, E], or [T, E + Z] with null experts."""
    claim, taken = case.claim, routing.mask_with_nulls
    if claim.group_limit is not None:
        # within the groups that a token uses; group-rank asks which those are
        grouped = taken.view(len(logits), claim.groups, -1)
        used = grouped.any(-1, keepdim=True).expand_as(grouped).reshape(taken.shape)
        logits = logits.masked_fill(~used, -torch.inf)
    if claim.kind == "variable":
        # what a token took of null experts may be unknown, and so may be their logits
        known = routing.null_times is not None and logits.shape[1] >= taken.shape[1]
        taken = nn.functional.pad(taken, (0, logits.shape[1] - taken.shape[1])) if known else routing.mask
        logits = logits[:, : taken.shape[1]]
        best = best_experts(logits, taken)
    else:
        best = top_experts(logits, case.shape.activated, claim.groups if claim.per_group_k is not None else 1)
    found = difference(taken.float(), best.float())
    if not found.significant:
        return passed("every token takes its best experts")
    own, wanted = (mask[found.worst].nonzero().flatten().tolist() for mask in (taken, best))
    return failed(
        f"{found.differing} of {found.tokens} tokens do not take their {best.sum(-1).max()} best experts",
        worst=f"token {found.worst} takes {own}, its best are {wanted}",
    )


def unclaimed_groups(case: ConformanceCase) -> str:
    """Why a candidate that claims nothing breaks laws: its tokens choose within groups; "" if that explains nothing."""
    if case.learned.unclaimed_groups is None:
        case.learned.unclaimed_groups = ""
        try:
            built, x = case.first.build(), case.first.tokens()
            taken, logits = route(built, x).mask, read_logits(built, x)
        except Exception:  # what is wrong is in the result of the check that asks
            logits = None
        groups = None if logits is None else _groups_taken(taken, logits)
        if groups is not None:
            case.learned.unclaimed_groups = (
                "tokens take the best experts of some groups, and nothing is claimed: claim groups = "
                f"{groups[0]}, group_limit = {groups[1]}"
            )
    return case.learned.unclaimed_groups


def _groups_taken(taken: Tensor, logits: Tensor) -> tuple[int, int] | None:
    """Into how many groups experts are divided, and how many a token uses, where that alone explains a selection."""
    size, counts = taken.shape[1], taken.sum(-1)
    if logits.shape != taken.shape or bool((counts != counts[0]).any()):
        return None
    left, kept = logits.masked_fill(taken, -torch.inf).amax(-1), logits.masked_fill(~taken, torch.inf).amin(-1)
    if float((left - kept).max()) <= _ROUNDING * max(1.0, float(logits.abs().max())):
        return None
    for groups in (g for g in range(2, size // 2 + 1) if size % g == 0):
        used = taken.view(len(taken), groups, -1).any(-1)
        limit = int(used.sum(-1).max())
        within = logits.masked_fill(~used.repeat_interleave(size // groups, -1), -torch.inf)
        if limit < groups and not difference(taken.float(), best_experts(within, taken).float()).significant:
            return groups, limit
    return None


def _masked_in_place(built: BuiltCandidate, x: Tensor, routing: Routing) -> CheckOutcome | None:
    """A failure if some, but not all, of the returned logits differ from those that the gate received."""
    received, returned = gate_logits(built, x), routing.logits
    if received is None or returned is None:
        return None
    changed = (returned - received).abs() > TOLERANCE * received.abs().max()
    if not bool(changed.any()) or bool(changed.all(-1).any()):
        return None
    token, expert = (int(i) for i in changed.nonzero()[0])
    return failed(
        f"{int(changed.sum())} of the {changed.numel()} logits that it returns are not those that its gate received, "
        "as after masking in place: a loss on them sees other numbers than the router",
        worst=f"token {token}, expert {expert}: {float(returned[token, expert]):.4g}, the gate received "
        f"{float(received[token, expert]):.4g}",
    )


def bias_selection(case: ConformanceCase) -> CheckOutcome:
    """A selection bias changes the selection and never the weights; adding a constant to it changes nothing.

    In both modes, without noise. It is saved with the module.
    """
    outcome = _bias_selects(case.build())
    if outcome.status != "passed":
        return outcome
    training = case.build(train=True)
    with without_noise(training.module):
        other = _bias_selects(training)
    return replace(other, measured=f"in training mode: {other.measured}") if other.status == "failed" else outcome


def _bias_selects(built: BuiltCandidate) -> CheckOutcome:
    case, found_bias = built.case, selection_bias(built)
    if found_bias is None:
        return skipped("no selection bias")
    (name, bias), x = found_bias, case.tokens()
    if name not in built.module.state_dict():
        return failed(f"{name} is not in the state_dict: it starts again from its init at every resume", worst=name)
    plain = route(built, x)
    drawn = torch.randn(bias.shape, generator=torch.Generator().manual_seed(case.seed)).to(bias)

    def route_with(values: Tensor) -> Routing:
        with torch.no_grad():
            bias.copy_(values)
            return route(built, x)

    small, moved = route_with(0.02 * drawn), route_with(0.3 * drawn)
    shifted = {"+2": route_with(0.3 * drawn + 2.0), "-2": route_with(0.3 * drawn - 2.0)}
    large = route_with(100.0 * (torch.arange(len(bias), device=bias.device) == 0).to(bias))
    same = (plain.mask == small.mask).all(-1)
    found = difference(plain.combine[same], small.combine[same])
    if found.differing and bool(same.any()):
        return failed(
            f"with a bias of up to {float(0.02 * drawn.abs().max()):.2g}, weights change by up to {found.largest:.3g} "
            "where the selection does not",
            worst=f"token {int(same.nonzero()[found.worst])}",
            causes=(6, 7),
        )
    for shift, other in shifted.items():
        found = difference(moved.combine, other.combine, tolerance=1e-3)
        if found.significant:
            return failed(
                f"adding {shift} to every expert's bias changes the routing: {found}",
                worst=f"token {found.worst}",
                causes=(8, 6),
            )
    if not bool(large.mask[:, 0].all()):
        return failed(f"with a bias of 100 on expert 0, {int((~large.mask[:, 0]).sum())} tokens do not take it")
    heaviest = float(large.combine.detach().max())
    usual = max(float(plain.combine.detach().max()), case.claim.expected_sum() or 0.0)
    if not bool(large.combine.isfinite().all()) or heaviest > _HEAVIER * usual:
        return failed(f"a bias of 100 on expert 0 gives a weight of {heaviest:.4g}", causes=(6,))
    return passed("changes the selection only, also when shifted by 2 and at 100")


CHECKS = (
    Check(run=load, source="arXiv 1701.06538"),
    Check(run=selection, source="arXiv 1701.06538"),
    Check(run=bias_selection, source="arXiv 2408.15664"),
)
