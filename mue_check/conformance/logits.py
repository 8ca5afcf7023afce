"""Find a router's logits: those that its gate function receives, or x W^T with its only [E, d] weight."""

from typing import Any

import torch
from torch import Tensor, nn

from mue_check.conformance.case import BuiltCandidate, ConformanceCase
from mue_check.conformance.learned import LogitSource
from mue_check.conformance.router_probe import layout_of, router_input, router_of, router_routing
from mue_check.conformance.torch_calls import intercept_calls

_ROUNDED = 0.03
"""Relative to the largest logit: more than bfloat16 rounds away, less than a norm or a temperature changes."""


def logit_source(case: ConformanceCase) -> LogitSource:
    """Where the candidate's logits are found, learned once."""
    if case.learned.logits is None:
        first = case.first
        number = _first_gate_call(first)
        linear = layout_of(first) is not None and _is_linear(first, number)
        case.learned.logits = LogitSource(gate_call=number, linear=linear)
    return case.learned.logits


def gate_logits(built: BuiltCandidate, x: Tensor) -> Tensor | None:
    """[T, E]: what the gate function receives; None where that cannot be seen."""
    return _intercepted(built, x, logit_source(built.case).gate_call)[0]


def logits_call(built: BuiltCandidate, x: Tensor) -> tuple[int, Tensor] | None:
    """The number of the first torch call that returns the logits, and those [T, E]; None where that is not visible."""
    logits, results = _intercepted(built, x, logit_source(built.case).gate_call)
    return next(((n, logits) for n, r in results if logits is not None and equals_logits(r, logits)), None)


def linear_logits(built: BuiltCandidate, x: Tensor, *, dtype: torch.dtype | None = None) -> Tensor | None:
    """[T, E] in ``dtype``: x W^T plus the router's bias, unless that is a selection bias; None without one weight."""
    weight, router = gate_weight(built), router_of(built)
    if weight is None or router is None:
        return None
    claim, size = built.case.claim, (built.case.shape.experts,)
    if not built.case.is_router:
        x = router_input(built, x)
    excluded = (claim.selection_bias or "").rsplit(".", 1)[-1]
    biases = [p for n, p in router.named_parameters() if p.shape == size and n.rsplit(".", 1)[-1] != excluded]
    dtype = dtype or weight.dtype
    bias = biases[0].to(dtype) if len(biases) == 1 else None
    return nn.functional.linear(x.to(dtype), weight.to(dtype), bias)


def gate_weight(built: BuiltCandidate) -> Tensor | None:
    """The router's only [E, D] matrix, transposed if it is stored as [D, E]; None if there is not exactly one."""
    router = router_of(built)
    if router is None:
        return None
    e, d = built.case.shape.experts, built.case.shape.d
    weights = [p if p.shape == (e, d) else p.T for p in router.parameters() if tuple(p.shape) in ((e, d), (d, e))]
    return weights[0] if len(weights) == 1 else None


def routing_scope(built: BuiltCandidate) -> nn.Module:
    """Where logits are searched: the router, or the whole block if no router was found."""
    router = router_of(built)
    return built.module if router is None else router


def equals_logits(result: object, logits: Tensor) -> bool:
    """Whether a result equals the logits [T, E], in any dtype and with any batch and time axes."""
    if not isinstance(result, Tensor) or not _by_expert(result, *logits.shape):
        return False
    return torch.equal(result.reshape(logits.shape), logits)


def _intercepted(
    built: BuiltCandidate, x: Tensor, gate_call: int | None
) -> tuple[Tensor | None, list[tuple[int, Tensor]]]:
    """([T, E] that the gate function receives, each [T, E] result of a torch call with the number of the call)."""
    size = len(x), built.case.shape.experts
    received: list[Tensor] = []
    results: list[tuple[int, Tensor]] = []

    def on_gate(number: int, given: Tensor) -> None:
        if number == gate_call and _by_expert(given, *size):
            received.append(given.clone())  # the function itself may write over it

    def on_result(number: int, result: Any) -> Any:
        if isinstance(result, Tensor) and _by_expert(result, *size):
            results.append((number, result.detach().clone()))
        return result

    with intercept_calls(routing_scope(built), on_gate=on_gate, on_result=on_result):
        built.call(x)
    return (received[0].reshape(size) if received else None), results


def _first_gate_call(case: ConformanceCase) -> int | None:
    """The number of the first gate-function call that receives [T, E]."""
    numbers: list[int] = []
    built, x = case.build(), case.tokens()

    def on_gate(number: int, given: Tensor) -> None:
        if _by_expert(given, len(x), case.shape.experts):
            numbers.append(number)

    with intercept_calls(routing_scope(built), on_gate=on_gate):
        built.call(x)
    return numbers[0] if numbers else None


def _by_expert(given: Tensor, tokens: int, experts: int) -> bool:
    return given.is_floating_point() and given.shape[-1:] == (experts,) and given.numel() == tokens * experts


def _is_linear(case: ConformanceCase, gate_call: int | None) -> bool:
    """Whether logits are x W^T: by the intercepted ones, else by the selection, which must not be as by chance."""
    built, x, k = case.build(), case.tokens(), case.shape.activated
    logits, (given, _) = linear_logits(built, x), _intercepted(built, x, gate_call)
    if logits is None:
        return False
    if given is not None:
        return float((given - logits).abs().max()) <= _ROUNDED * float(logits.abs().max())
    mask = router_routing(built, x).mask
    best = torch.zeros_like(mask).scatter(-1, logits.topk(k, dim=-1).indices, True)
    overlap, chance = float((mask & best).sum() / mask.sum().clamp_min(1)), k / case.shape.experts
    return overlap > (1 + chance) / 2 or overlap < chance / 4
