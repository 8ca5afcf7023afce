"""Logits with an offset: all negative, as after training with a z-loss or a bias, or all large."""

from dataclasses import replace

import torch
from torch import Tensor

from mue_check.conformance.case import BuiltCandidate, ConformanceCase
from mue_check.conformance.check import Check, CheckOutcome, failed, passed, skipped
from mue_check.conformance.checks.compare import difference, first_token
from mue_check.conformance.checks.groups import within_limit
from mue_check.conformance.checks.selection import has_uneven_bias, takes_best
from mue_check.conformance.checks.weights import sum_as_claimed
from mue_check.conformance.logits import logit_setter
from mue_check.conformance.reading import read_logits, route
from mue_check.routing.canonical import Routing

_SHIFTS = (-30.0, -4.0, 30.0)
"""Far below 0, where log(1 + exp x) rounds to 0 in float32 and a sigmoid does not; a little below; far above."""
_SMALL_SCORES = -15.0
"""Sigmoids of logits below are so small that an eps in the denominator (1e-6 in LFM2) changes the sum, by design."""


def shifted_logits(case: ConformanceCase) -> CheckOutcome:
    """Logits that are all negative, or all large, give finite weights of the best experts with the claimed sum."""
    built, x = case.build(), case.tokens()
    own, precise = read_logits(built, x), case.build(dtype=torch.float64)
    with_logits = None if own is None or not case.claim.independent else logit_setter(built, len(x))
    if own is None or with_logits is None:
        return skipped("applies to token choice with logits that can be set")
    for shift in _SHIFTS:
        logits = (own + shift).detach()
        with with_logits(logits) as given:
            routing = route(built, given)
        if not bool(routing.combine.isfinite().all()):
            outcome = failed("a weight is not finite", worst=first_token(~routing.combine.isfinite()))
        else:
            outcome = _as_unshifted(case, routing, logits, saturated=shift > 0)
        if outcome.status != "failed" and shift == min(_SHIFTS):
            outcome = _as_in_float64(precise, routing, logits)
        if outcome.status == "failed":
            return replace(outcome, measured=f"with logits shifted by {shift:+g}: {outcome.measured}", causes=(30,))
    return passed(f"finite, best and summed as claimed with logits shifted by {', '.join(f'{s:+g}' for s in _SHIFTS)}")


def _as_unshifted(case: ConformanceCase, routing: Routing, logits: Tensor, *, saturated: bool) -> CheckOutcome:
    """What holds of any logits: sign, limit on groups, the best experts, and a sum that eps does not touch."""
    least = float(routing.combine.min())
    if least < -1e-6:
        return failed(f"the smallest weight is {least:.4g}")
    outcomes = [within_limit(case, routing.mask)]
    if not saturated and not has_uneven_bias(case.build()):  # sigmoids of large logits tie in float32
        outcomes.append(takes_best(case, routing, logits))
    if float(logits.mean()) > _SMALL_SCORES:
        outcomes.append(sum_as_claimed(case, routing))
    return next((o for o in outcomes if o.status == "failed"), passed(""))


def _as_in_float64(precise: BuiltCandidate, routing: Routing, logits: Tensor) -> CheckOutcome:
    """Scores must not round to 0 where float64 still tells them apart."""
    lost = routing.mask.any(-1) & (routing.combine.detach() == 0).all(-1)
    if bool(lost.any()):
        return failed(f"{int(lost.sum())} tokens lose all their weights", worst=first_token(lost))
    try:
        with_logits = logit_setter(precise, len(logits))
        assert with_logits is not None
        with with_logits(logits.double()) as given:
            exact = route(precise, given.double())
    except Exception:  # a router that mixes dtypes does not run in float64
        return passed("")
    same = (routing.mask == exact.mask).all(-1)
    found = difference(routing.combine[same].double(), exact.combine[same].double(), tolerance=1e-3)
    if found.significant:
        return failed(f"weights are not those of float64: {found}", worst=f"token {int(same.nonzero()[found.worst])}")
    return passed("")


CHECKS = (Check(run=shifted_logits, source="sgl-project/sglang PR#34459", since="0.4", once=True),)
