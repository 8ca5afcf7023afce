"""Kernels and numbers: published sizes, precision, extreme and shifted logits, repeated calls."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from mue_check.conformance.case import BuiltCandidate, ConformanceCase
from mue_check.conformance.check import ROUTERS, Check, CheckOutcome, failed, passed, skipped, unknown
from mue_check.conformance.checks.compare import compare, difference, first_token
from mue_check.conformance.checks.groups import group_limit, within_limit
from mue_check.conformance.checks.selection import has_uneven_bias, load, selection, takes_best
from mue_check.conformance.checks.weights import gate, sum_as_claimed, weight_sign, weight_sum
from mue_check.conformance.expected_routing import top_experts
from mue_check.conformance.logits import linear_logits, logit_setter, logit_source
from mue_check.conformance.reading import read_logits, result_of, route
from mue_check.conformance.router_probe import layout_of, router_output, selection_bias
from mue_check.conformance.torch_calls import without_noise
from mue_check.errors import ClaimError
from mue_check.routing.canonical import Routing
from mue_check.user_code import describe_error

_MANY = 1024
_CROWDED = {"d": 64, "experts": 128, "activated": 8}
"""Many experts have close logits, as in the models in which selections flipped."""
_FLIPS = 0.005
"""Share of tokens with another selection: float32 gates flip one in ten thousand, bfloat16 gates some percent."""
_LARGE_LOGITS = 60.0
"""At this standard deviation some exponentials overflow and some probabilities underflow, unless the gate is stable."""


def gate_precision(case: ConformanceCase) -> CheckOutcome:
    """With float32 tokens the selection is that of float64."""
    return _flips(case, torch.float32, draw=21)


def gate_bf16(case: ConformanceCase) -> CheckOutcome:
    """In a bfloat16 model the gate selects as in exact arithmetic on the rounded weights and tokens."""
    if case.claim.independent and case.claim.fp32_gate is False:
        return skipped("claimed to compute in the model's dtype")
    return _flips(case, torch.bfloat16, draw=22)


def _flips(case: ConformanceCase, dtype: torch.dtype, *, draw: int) -> CheckOutcome:
    if not case.claim.independent:
        return skipped("applies to token choice")
    case = case.at(**_CROWDED)
    built, x = case.build(dtype=dtype), case.tokens(draw, count=_MANY).to(dtype)
    selected, exact = route(built, x).mask, _exact_selection(built, x)
    if exact is None:
        return unknown("the router does not run in float64, and its logits are not known")
    flipped = (selected != exact).any(-1)
    share, name = float(flipped.double().mean()), str(dtype).removeprefix("torch.")
    measured = f"{share:.2%} of {len(selected)} tokens select other experts in {name} than in float64"
    if share > _FLIPS:
        return failed(f"{measured}, at most {_FLIPS:.1%} allowed", worst=first_token(flipped), causes=(20,))
    return passed(measured)


def _exact_selection(built: BuiltCandidate, x: Tensor) -> Tensor | None:
    """[T, E] bool: the selection in float64 with the same weights and tokens, by our own arithmetic where possible."""
    claim, bias = built.case.claim, selection_bias(built)
    plain = claim.group_limit is None and (bias is None or not bool((bias[1] != 0).any()))
    if logit_source(built.case).linear and claim.kind == "token_choice" and plain:
        logits = linear_logits(built, x.double(), dtype=torch.float64)
        if logits is not None:
            groups = claim.groups if claim.per_group_k is not None else 1
            return top_experts(logits, built.case.shape.activated, groups)
    copy = built.case.build(dtype=torch.float64)
    copy.module.load_state_dict(built.module.state_dict())
    try:
        return route(copy, x.double()).mask
    except Exception:  # explicit casts make it mix dtypes
        return None


def extreme_logits(case: ConformanceCase) -> CheckOutcome:
    """Large logits give finite weights and gradients."""
    built, x = case.build(), case.tokens()
    logits = read_logits(built, x)
    spread = 1.0 if logits is None else float(logits.detach().double().std()) or 1.0
    x = (x * (_LARGE_LOGITS / spread)).requires_grad_()
    out, at = result_of(built, x), f"logits with a standard deviation of {_LARGE_LOGITS:g}"
    if not bool(out.isfinite().all()):
        return failed(f"not finite at {at}", worst=first_token(~out.isfinite()))
    if out.requires_grad:
        torch.autograd.backward(out.sum())
        gradients = [p.grad for p in built.module.parameters() if p.grad is not None]
        if not all(bool(g.isfinite().all()) for g in gradients):
            return failed(f"gradients are not finite at {at}")
    return passed(f"finite at {at}")


def deterministic(case: ConformanceCase) -> CheckOutcome:
    """The same tokens give the same result in every call, and when recomputed for the backward pass."""
    built, x = case.build(), case.tokens()
    with torch.no_grad():  # where buffers are reused
        result = _live_result(built, x)
        before = result().clone()
        result_of(built, case.tokens(7, count=len(x)))
        after = result()
    outcome = compare(before, after, "a later call overwrites the result of this one", exact=True)
    if outcome.status == "failed":
        return outcome
    outcome = compare(result_of(built, x), result_of(built, x), "a second call", exact=True)
    if outcome.status == "failed":
        return outcome
    training = case.build(train=True)

    def recompute() -> Tensor:
        torch.manual_seed(case.seed)  # as checkpointing restores the generator
        return result_of(training, x.clone())

    outcome = compare(recompute(), recompute(), "recomputed in training mode", causes=(19,), exact=True)
    return outcome if outcome.status == "failed" else passed("equal in a second call and when recomputed")


def _live_result(built: BuiltCandidate, x: Tensor) -> Callable[[], Tensor]:
    """The result of one call, read from the returned tensors each time it is asked for."""
    layout = layout_of(built.case)
    if built.case.is_router and layout is not None:
        returned, size = router_output(built, x)
        return lambda: layout.read(returned, size).combine
    result = result_of(built, x)
    return lambda: result


def train_eval(case: ConformanceCase) -> CheckOutcome:
    """Without noise, training mode and evaluation mode give the same result."""
    x, built, trained = case.tokens(), case.build(), case.build(train=True)
    trained.module.load_state_dict(built.module.state_dict())  # an init may draw from a generator of its own
    with without_noise(trained.module):
        evaluation, training = result_of(built, x), result_of(trained, x.clone())
    return compare(evaluation, training, "training mode against evaluation mode")


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
    """No score may round to 0 where float64 still distinguishes the scores."""
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


_PUBLISHED = ((128, 8), (256, 8), (64, 6), (160, 6), (384, 8), (512, 10), (128, 4), (32, 4), (60, 4), (16, 2), (8, 2))
"""(E, a) of Qwen3, DeepSeek-V3, Moonlight, DeepSeek-V2, Kimi K2, Qwen3-Next, gpt-oss (two), Qwen2-MoE, Phi, Mixtral."""
_TOKENS = 160
"""More than one tile of tokens."""
_LAWS = (load, weight_sign, weight_sum, gate, selection, group_limit)


def published_sizes(case: ConformanceCase) -> CheckOutcome:
    """At the numbers of experts of published models, load, weights and selection are as at small ones."""
    if case.chosen:
        return skipped("the sizes of --shapes alone are asked for")
    refused: list[str] = []
    for experts, activated in _PUBLISHED:
        at = case.at(experts=experts, activated=activated, tokens=_TOKENS)
        where = f"E={at.shape.experts} a={at.shape.activated}"
        for law in _LAWS:
            try:
                outcome = law(at)
            except ClaimError:
                raise
            except Exception as error:  # a kernel may refuse a size: that is loud
                refused.append(f"{where} ({describe_error(error)})")
                break
            if outcome.status == "failed":
                name = law.__name__.replace("_", "-")
                return replace(outcome, measured=f"{name} at {where}: {outcome.measured}", causes=(33,))
    if len(refused) == len(_PUBLISHED):
        return failed(f"none of {len(refused)} published sizes runs: {refused[0]}")
    return passed("as at small sizes" + (f"; refused: {', '.join(refused)}" if refused else ""))


CHECKS = (
    Check(run=published_sizes, source="MetaX-MACA/vLLM-metax #270", since="0.4", candidates=ROUTERS, once=True),
    Check(run=gate_precision, source="arXiv 2101.03961 (selective precision)", once=True),
    Check(run=gate_bf16, source="sgl-project/sglang PR#33764", severity="should", must_if="fp32_gate", once=True),
    Check(run=extreme_logits, source="arXiv 2202.08906 (router z-loss: logits grow)"),
    Check(run=deterministic, source="activation checkpointing"),
    Check(run=train_eval, source="arXiv 2101.03961 (jitter is a setting)", severity="should"),
    Check(run=shifted_logits, source="sgl-project/sglang PR#34459", since="0.4", once=True),
)
