"""Find a router's logits: those that its gate function receives, or x W^T with its only [E, d] weight; and set them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mue_check.conformance.case import BuiltCandidate, ConformanceCase
from mue_check.conformance.learned import LogitSource
from mue_check.conformance.router_probe import layout_of, router_input, router_of, router_routing, without_leading_ones
from mue_check.conformance.torch_calls import intercept_calls, without_noise
from mue_check.errors import ClaimError

_ROUNDED = 0.03
"""Relative to the largest logit: more than bfloat16 rounds away, less than a norm or a temperature changes."""


def logit_source(case: ConformanceCase) -> LogitSource:
    """Where the candidate's logits are found, learned once."""
    if case.learned.logits is None:
        first = case.first
        number = _find_gate_call(first, train=False)
        linear = layout_of(first) is not None and _is_linear(first, number)
        training = _find_gate_call(first, train=True)
        case.learned.logits = LogitSource(gate_call=number, training_gate_call=training, linear=linear)
    return case.learned.logits


def gate_logits(built: BuiltCandidate, x: Tensor) -> Tensor | None:
    """[T, E], or [T, E + Z] with Z null experts: what the gate function receives; None where that cannot be seen."""
    return _intercepted(built, x, _gate_call(built))[0]


def linear_logits(built: BuiltCandidate, x: Tensor, *, dtype: torch.dtype | None = None) -> Tensor | None:
    """[T, E] in ``dtype``: x W^T plus the router's bias, unless that is a selection bias; None without one weight."""
    weight, router = gate_weight(built), router_of(built)
    if weight is None or router is None:
        return None
    claim, size = built.case.claim, (built.case.shape.experts,)
    if not built.case.is_router:
        x = router_input(built, x)
    excluded = (claim.selection_bias or "").rsplit(".", 1)[-1]
    vectors = [(n, without_leading_ones(p)) for n, p in router.named_parameters()]
    biases = [p for n, p in vectors if p.shape == size and n.rsplit(".", 1)[-1] != excluded]
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


def logit_setter(built: BuiltCandidate, tokens: int) -> Callable[[Tensor], AbstractContextManager[Tensor]] | None:
    """A context in which passing the tokens it yields through the candidate gives the router these logits."""
    case, weight = built.case, gate_weight(built)
    if weight is not None and case.shape.d >= case.shape.experts and logit_source(case).linear:
        eye = torch.eye(case.shape.experts, case.shape.d).to(weight)
        router = router_of(built)
        assert router is not None
        with torch.no_grad():
            # the logits are then the first E entries of a token
            weight.copy_(eye)
            for name, parameter in router.named_parameters():
                if without_leading_ones(parameter).shape == (case.shape.experts,) and "bias" in name:
                    parameter.zero_()
        return lambda logits: nullcontext(logits @ eye.to(logits))
    if _logits_call(built, case.tokens(count=tokens)) is None:
        return None

    @contextmanager
    def replace_logits(logits: Tensor) -> Iterator[Tensor]:
        x = case.tokens(count=len(logits))  # outside of the interception, where its calls do not count
        found = _logits_call(built, x)
        assert found is not None
        call, own = found

        def on_result(number: int, result: Any) -> Any:
            # a loss may compute the logits again
            if number == call or _equals_logits(result, own):
                return logits.to(result.dtype).view(result.shape)
            return result

        with intercept_calls(_routing_scope(built), on_result=on_result):
            yield x

    return replace_logits


def _gate_call(built: BuiltCandidate) -> int | None:
    source = logit_source(built.case)
    return source.training_gate_call if built.module.training else source.gate_call


def _logits_call(built: BuiltCandidate, x: Tensor) -> tuple[int, Tensor] | None:
    """The number of the first torch call that returns the logits, and those; None where that is not visible."""
    logits, results = _intercepted(built, x, _gate_call(built))
    return next(((n, logits) for n, r in results if logits is not None and _equals_logits(r, logits)), None)


def _routing_scope(built: BuiltCandidate) -> nn.Module:
    """Where logits are searched: the router, or the whole block if no router was found."""
    router = router_of(built)
    return built.module if router is None else router


def _equals_logits(result: object, logits: Tensor) -> bool:
    """Whether a result equals the logits [T, E], in any dtype and with any batch and time axes."""
    if not isinstance(result, Tensor) or result.shape[-1:] != logits.shape[-1:] or result.numel() != logits.numel():
        return False
    return result.is_floating_point() and torch.equal(result.reshape(logits.shape), logits)


def _intercepted(
    built: BuiltCandidate, x: Tensor, gate_call: int | None
) -> tuple[Tensor | None, list[tuple[int, Tensor]]]:
    """(what the gate function receives, each result of a torch call with the call's number): tensors [T, E]."""
    received: list[Tensor] = []
    results: list[tuple[int, Tensor]] = []

    def on_gate(number: int, given: Tensor) -> None:
        if number == gate_call and _by_expert(given, built, x):
            received.append(given.clone())  # the function itself may write over it

    def on_result(number: int, result: Any) -> Any:
        if isinstance(result, Tensor) and _by_expert(result, built, x):
            results.append((number, result.detach().clone()))
        return result

    with intercept_calls(_routing_scope(built), on_gate=on_gate, on_result=on_result):
        built.call(x)
    return (received[0].reshape(len(x), -1) if received else None), results


def _find_gate_call(case: ConformanceCase, *, train: bool) -> int | None:
    """The number of the first gate-function call that receives [T, E], and on whose result the routing depends.

    The size of noise has a gate function of its own: with the noise off nothing depends on it.
    """
    built, x = case.build(train=train), case.tokens()
    numbers: list[int] = []

    def on_gate(number: int, given: Tensor) -> None:
        if _by_expert(given, built, x):
            numbers.append(number)

    try:
        with without_noise(built.module):
            with intercept_calls(_routing_scope(built), on_gate=on_gate):
                built.call(x)
            if len(numbers) > 1 and layout_of(case) is not None:
                numbers = [n for n in numbers if _decides(built, x, n)] or numbers
    except Exception:
        if not train:
            raise
        numbers = []  # the checks of training mode report it
    return numbers[0] if numbers else None


def _decides(built: BuiltCandidate, x: Tensor, gate_call: int) -> bool:
    """Whether the routing changes with the result of a call of a gate function; with that of topk it does."""
    at_gate = chooses = False

    def on_gate(number: int, given: Tensor) -> None:
        nonlocal at_gate
        at_gate = number == gate_call

    def on_result(number: int, result: Any) -> Any:
        nonlocal at_gate, chooses
        at_gate, is_result = False, at_gate
        chooses |= is_result and not isinstance(result, Tensor)
        return result.flip(-1) if is_result and isinstance(result, Tensor) else result

    plain = router_routing(built, x)
    with intercept_calls(_routing_scope(built), on_gate=on_gate, on_result=on_result):
        try:
            return not torch.equal(router_routing(built, x).combine, plain.combine) or chooses
        except ClaimError:
            return True


def _by_expert(given: Tensor, built: BuiltCandidate, x: Tensor) -> bool:
    """Whether a tensor has a column for each expert, and perhaps some for null experts."""
    columns, experts = given.shape[-1] if given.dim() else 0, built.case.shape.experts
    nulls = built.case.claim.kind == "variable" and experts < columns <= 2 * experts and columns != x.shape[-1]
    return given.is_floating_point() and (columns == experts or nulls) and given.numel() == len(x) * columns


def _is_linear(case: ConformanceCase, gate_call: int | None) -> bool:
    """Whether logits are x W^T: by the intercepted ones, else by the selection, which must not be as by chance."""
    built, x, k = case.build(), case.tokens(), case.shape.activated
    weight = gate_weight(built)
    if weight is not None:
        with torch.no_grad():  # a norm of the weight is 1 at init only
            weight.mul_(1.5)
    logits, (given, _) = linear_logits(built, x), _intercepted(built, x, gate_call)
    if logits is None:
        return False
    if given is not None:
        given, logits = given.detach(), logits.detach()
        same = given.shape == logits.shape
        return same and float((given - logits).abs().max()) <= _ROUNDED * float(logits.abs().max())
    mask = router_routing(built, x).mask
    best = torch.zeros_like(mask).scatter(-1, logits.topk(k, dim=-1).indices, True)
    overlap, chance = float((mask & best).sum() / mask.sum().clamp_min(1)), k / case.shape.experts
    return overlap > (1 + chance) / 2 or overlap < chance / 4
