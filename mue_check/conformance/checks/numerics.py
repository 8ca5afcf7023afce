"""Precision, extremes and repetition."""

from collections.abc import Callable

import torch
from torch import Tensor

from mue_check.conformance.case import Built, Case
from mue_check.conformance.checks.compare import difference, fresh, observed
from mue_check.conformance.checks.selection import selection_bias, top
from mue_check.conformance.registry import Finding, check, failed, passed, skipped, unknown

_MANY = 1024
_CROWDED = {"d": 64, "experts": 128, "activated": 8}
"""Many experts lie close together, as in the models whose choices flipped."""
_FLIPS = 0.005
"""Share of tokens with another choice: float32 gates stay at one in ten thousand, bfloat16 ones flip some percent."""
_LARGE_LOGITS = 60.0
"""With this spread some exponential overflows and some probability underflows, if only by a gate that lets them."""


@check(
    "gate-precision",
    law="with float32 tokens the choice is that of float64",
    source="arXiv 2101.03961 (selective precision)",
    once=True,
)
def gate_precision(case: Case) -> Finding:
    """Choices in float32 against float64, over many tokens."""
    if not case.claim.independent:
        return skipped("asked of token choice")
    case = case.at(**_CROWDED)
    built, x = case.build(), case.tokens(21, count=_MANY)
    chosen, exact = built.route(x).mask, _exact(built, x)
    if exact is None:
        return unknown("the router does not run in float64, and its logits are not known")
    return _flips(chosen, exact, "float32")


@check(
    "gate-bf16",
    law="in a bfloat16 model the gate still chooses as in float32",
    source="sgl-project/sglang PR#33764",
    severity="should",
    must_if="fp32_gate",
    once=True,
)
def gate_bf16(case: Case) -> Finding:
    """Choices of a bfloat16 model against the same rounded weights and tokens in float64."""
    if not case.claim.independent:
        return skipped("asked of token choice")
    if case.claim.fp32_gate is False:
        return skipped("claimed to compute in the model's type")
    case = case.at(**_CROWDED)
    built = case.build(dtype=torch.bfloat16)
    x = case.tokens(22, count=_MANY).bfloat16()
    chosen, exact = built.route(x).mask, _exact(built, x)
    if exact is None:
        return unknown("the router does not run in float64, and its logits are not known")
    return _flips(chosen, exact, "bfloat16")


@check(
    "extreme-logits",
    law="large logits give finite weights and gradients",
    source="arXiv 2202.08906 (router z-loss: logits grow)",
)
def extreme_logits(case: Case) -> Finding:
    """Scale the tokens until logits have a spread of 20."""
    built, x = case.build(), case.tokens()
    logits = built.logits(x)
    spread = 1.0 if logits is None else float(logits.detach().double().std()) or 1.0
    x = (x * (_LARGE_LOGITS / spread)).requires_grad_()
    out = observed(built, x)
    if not bool(out.isfinite().all()):
        token = int((~out.isfinite()).flatten(1).any(1).nonzero()[0])
        return failed(f"not finite at logits of spread {_LARGE_LOGITS:g}", worst=f"token {token}")
    if out.requires_grad:
        torch.autograd.backward(out.sum())
        gradients = [p.grad for p in built.module.parameters() if p.grad is not None]
        if not all(bool(g.isfinite().all()) for g in gradients):
            return failed(f"gradients are not finite at logits of spread {_LARGE_LOGITS:g}")
    return passed(f"finite at logits of spread {_LARGE_LOGITS:g}")


@check(
    "deterministic",
    law="the same tokens give the same result again, and when recomputed for the backward pass",
    source="activation checkpointing",
)
def deterministic(case: Case) -> Finding:
    """Call twice, with other tokens in between, and in training mode twice from one state of the generator."""
    built, x = case.build(), case.tokens()
    with torch.no_grad():  # where memory is used again
        kept = _kept(built, x)
        before = kept().clone()
        observed(built, fresh(len(x), built, 7))
        after = kept()
    apart = difference(before, after, tolerance=0.0)
    if apart.differing:
        return failed(f"a later call writes over the result of this one: {apart}", worst=f"token {apart.worst}")
    apart = difference(observed(built, x), observed(built, x), tolerance=0.0)
    if apart.differing:
        return failed(f"a second call: {apart}", worst=f"token {apart.worst}")
    training, results = case.build(train=True), []
    for _ in range(2):
        torch.manual_seed(case.seed)  # as checkpointing restores the generator
        results.append(observed(training, x.clone()))
    apart = difference(*results, tolerance=0.0)
    if apart.differing:
        return failed(f"recomputed in training mode: {apart}", worst=f"token {apart.worst}", causes=(19,))
    return passed("the same again, and recomputed")


@check(
    "train-eval",
    law="without noise, training mode routes as evaluation mode does",
    source="arXiv 2101.03961 (jitter is a setting)",
    severity="should",
)
def train_eval(case: Case) -> Finding:
    """The same weights in both modes."""
    x = case.tokens()
    apart = difference(observed(case.build(), x), observed(case.build(train=True), x.clone()))
    if apart.real:
        return failed(f"training mode against evaluation mode: {apart}", worst=f"token {apart.worst}")
    return passed("both modes agree")


def _kept(built: Built, x: Tensor) -> Callable[[], Tensor]:
    """What one call gave, as it reads whenever it is looked at."""
    built.case.learn()
    layout = built.case.found.layout
    if built.case.candidate.kind == "router" and layout is not None:
        returned, size = built.routed(x)
        return lambda: layout.read(returned, size).combine
    result = observed(built, x)
    return lambda: result


def _exact(built: Built, x: Tensor) -> Tensor | None:
    """[T, E] bool: the choice in float64 of the same weights and tokens; by our own arithmetic where that is known."""
    claim, bias = built.case.claim, selection_bias(built)
    built.case.learn()
    plain = claim.group_limit is None and (bias is None or not bool((bias != 0).any()))
    if built.case.found.linear and claim.kind == "token_choice" and plain:
        logits = built.linear_logits(x.double(), dtype=torch.float64)
        if logits is not None:
            return top(logits, built.case.shape.activated, claim.groups if claim.per_group_k is not None else 1)
    copy = built.case.build(dtype=torch.float64)
    copy.module.load_state_dict(built.module.state_dict())
    try:
        return copy.route(x.double()).mask
    except Exception:  # types that are cast by hand do not meet in float64
        return None


def _flips(chosen: Tensor, exact: Tensor, dtype: str) -> Finding:
    flipped = (chosen != exact).any(-1)
    share = float(flipped.double().mean())
    said = f"{share:.2%} of {len(chosen)} tokens choose other experts in {dtype} than in float64"
    if share > _FLIPS:
        return failed(f"{said}, at most {_FLIPS:.1%}", worst=f"token {int(flipped.nonzero()[0])}", causes=(20,))
    return passed(said)
