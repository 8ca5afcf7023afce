"""The load-balancing loss: least when even, growing with imbalance, layer by layer, and felt by the router."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mue_check.conformance.case import Built, Case, same
from mue_check.conformance.checks.gradients import constant_at_one
from mue_check.conformance.registry import Finding, check, failed, passed, skipped, unknown
from mue_check.conformance.torch_calls import calls_of
from mue_check.errors import ClaimError
from mue_check.routing.adapter import Size, leaves_of
from mue_check.routing.factory import auxiliary_function

_CONFIDENT = 8.0
"""Logit of the experts that a token wants; the others have its negative, so that a sigmoid is sure of both."""
_SENSITIVE = 0.7
_SLACK = 0.02


@dataclass(frozen=True, kw_only=True)
class Auxiliary:
    """The loss as a function of one layer's logits, or of a list of them."""

    value: Callable[[list[Tensor]], Tensor]
    layered: bool
    experts: int
    activated: int
    tokens: int
    device: torch.device


@check(
    "aux-uniform",
    law="the balancing loss is least where the load is even",
    source="arXiv 2101.03961, eq. 4",
)
def aux_uniform(case: Case) -> Finding:
    """Even load against several uneven ones."""
    aux = _auxiliary(case)
    if isinstance(aux, Finding):
        return aux
    floor = float(aux.value([_wanted(aux, 0.0)]).detach())
    for share in (0.3, 0.6, 1.0):
        value = float(aux.value([_wanted(aux, share)]).detach())
        if not value >= floor - _SLACK * abs(floor):
            return failed(
                f"{value:.4g} where {share:.0%} of the tokens take the same experts, {floor:.4g} where all are even",
                causes=(13, 14),
            )
    return passed(f"the floor is {floor:.4g} at E={aux.experts}, a={aux.activated}")


@check(
    "aux-imbalance",
    law="the loss grows with imbalance, to at least most of E/a times its floor when all tokens agree",
    source="arXiv 2101.03961, eq. 4-6: E sum f_e P_e",
)
def aux_imbalance(case: Case) -> Finding:
    """More and more tokens want the same experts."""
    aux = _auxiliary(case)
    if isinstance(aux, Finding):
        return aux
    if aux.experts == aux.activated:
        return skipped("the load is even when all experts are taken")
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    values = [float(aux.value([_wanted(aux, share)]).detach()) for share in shares]
    said = ", ".join(f"{share:.0%}: {value:.4g}" for share, value in zip(shares, values, strict=True))
    drops = [b < a - _SLACK * abs(a) for a, b in pairwise(values)]
    if any(drops):
        return failed(f"not monotone in the share of tokens that agree ({said})", causes=(13, 14))
    needed = _SENSITIVE * aux.experts / aux.activated
    if values[-1] < needed * values[0] or values[-1] <= values[0]:
        return failed(
            f"{values[-1] / values[0] if values[0] else 0:.3g} times its floor when all tokens agree, E/a = "
            f"{aux.experts / aux.activated:.3g} ({said})",
            causes=(14, 13),
        )
    return passed(f"share of tokens that agree: {said}")


@check(
    "aux-layers",
    law="layers are balanced one by one: collapsed layers do not make up for each other",
    source="huggingface/transformers #28255",
)
def aux_layers(case: Case) -> Finding:
    """Each layer collapses onto other experts, so that together they look even."""
    aux = _auxiliary(case)
    if isinstance(aux, Finding):
        return aux
    if not aux.layered:
        return skipped("the loss sees one layer at a time")
    if aux.experts == aux.activated:
        return skipped("the load is even when all experts are taken")
    layers = [_wanted(aux, 1.0, first) for first in range(0, aux.experts, aux.activated)]
    one, together = float(aux.value(layers[:1]).detach()), float(aux.value(layers).detach())
    if together < _SENSITIVE * one:
        return failed(f"{len(layers)} collapsed layers score {together:.4g}, one scores {one:.4g}", causes=(13,))
    return passed(f"{len(layers)} collapsed layers score {together:.4g}, one scores {one:.4g}")


@check(
    "aux-split",
    law="the same tokens twice over, or asked again, give the same loss: its scale is not that of the batch",
    source="NVIDIA/Megatron-LM #1652",
)
def aux_split(case: Case) -> Finding:
    """A batch twice over, and each half after the other."""
    aux = _auxiliary(case)
    if isinstance(aux, Finding):
        return aux
    logits = _wanted(aux, 0.5)
    once = float(aux.value([logits]).detach())
    for said, value in (
        ("the same tokens twice over", float(aux.value([torch.cat([logits, logits])]).detach())),
        ("a second call", float(aux.value([logits]).detach())),
    ):
        if abs(value - once) > _SLACK * abs(once):
            return failed(f"{said} give {value:.4g}, once {once:.4g}", causes=(16,))
    return passed(f"{once:.4g} for a batch and for the same tokens twice over")


@check(
    "aux-gradient",
    law="the loss is felt by the router, and a step down its gradient evens the load",
    source="NVIDIA-NeMo/Automodel #1408",
)
def aux_gradient(case: Case) -> Finding:
    """Gradient with respect to the logits, or to the router's weights."""
    aux = _auxiliary(case)
    if isinstance(aux, Finding):
        return aux
    if aux.experts == aux.activated:
        return skipped("the load is even when all experts are taken")
    logits = (_wanted(aux, 0.75) / 4).requires_grad_()
    value = aux.value([logits])
    if not value.requires_grad:
        return failed("the loss carries no gradient", causes=(15,))
    (gradient,) = torch.autograd.grad(value, logits, allow_unused=True)
    largest = 0.0 if gradient is None else float(gradient.abs().max())
    if constant_at_one(case) and not largest > 1e-9:
        return skipped("a loss of normalized weights is constant at a = 1: see router-gradient-top1")
    if gradient is None or not largest > 1e-9:
        return failed(f"the largest gradient on the logits is {largest:.2g}", causes=(15,))
    crowded = float(gradient[:, : aux.activated].sum() - gradient[:, aux.activated :].mean() * aux.activated)
    if crowded <= 0:
        return failed(f"a step down the gradient makes the crowded experts more crowded ({crowded:.3g})")
    return passed(f"largest gradient on the logits {largest:.3g}, away from the crowded experts")


def _auxiliary(case: Case) -> Auxiliary | Finding:
    """The loss that the claim names, or the one scalar that is returned and grows with imbalance; else why not."""
    named, shape = case.claim.auxiliary_loss, case.shape
    # a multiple of E, so that an even load exists
    tokens = shape.experts * max(2, -(-shape.tokens // shape.experts))

    def of(value: Callable[[list[Tensor]], Tensor], *, layered: bool) -> Auxiliary:
        return Auxiliary(
            value=value,
            layered=layered,
            experts=shape.experts,
            activated=shape.activated,
            tokens=tokens,
            device=case.device,
        )

    if named is not None and ":" in named:
        function = auxiliary_function(case.claim)
        return of(lambda layers: _scalar(function(tuple(layers), shape.experts, shape.activated)), layered=True)
    built = case.build(train=True)
    if _held(built, case.tokens(), named) is None:
        if named is not None:
            raise ClaimError(f"the claim names the auxiliary loss {named!r}, and no scalar is found there")
        return skipped("no auxiliary loss is claimed or returned")
    drive = _driver(built, tokens)
    if drive is None:
        words = "there is an auxiliary loss, and no way to set the logits: claim auxiliary_loss = 'module:function'"
        return skipped(words) if named is None else unknown(words)

    def driven(layers: list[Tensor]) -> Tensor:
        (logits,) = layers
        with drive(logits) as x:
            found = _held(built, x, named)
        assert found is not None
        return found

    aux = of(driven, layered=False)
    if named is None and shape.experts > shape.activated and not _balances(aux):
        return skipped("the number that is returned does not depend on balance; a balancing loss can be claimed")
    return aux


def _balances(aux: Auxiliary) -> bool:
    """Whether a number that nobody called a loss is one: not a z-loss, nor what is returned to be logged."""
    even, crowded = aux.value([_wanted(aux, 0.0)]), aux.value([_wanted(aux, 1.0)])
    apart = float(crowded.detach() - even.detach())
    slack = _SLACK * max(abs(float(even.detach())), abs(float(crowded.detach())))
    if abs(apart) <= slack:
        softer = aux.value([0.5 * _wanted(aux, 0.0)])
        # what depends on no logit and has a gradient all the same is a loss, and a broken one
        return even.requires_grad and abs(float(softer.detach() - even.detach())) <= slack
    return apart > 0 or even.requires_grad


def _driver(built: Built, tokens: int) -> Callable[[Tensor], AbstractContextManager[Tensor]] | None:
    """What sets the router's logits while tokens are passed through the candidate, and gives those tokens."""
    case, weight = built.case, built.gate_weight()
    if weight is not None and case.shape.d >= case.shape.experts and case.found.linear:
        eye = torch.eye(case.shape.experts, case.shape.d).to(weight)
        with torch.no_grad():
            # logits are then the tokens' first E entries
            weight.copy_(eye)
            for name, parameter in (built.router or built.module).named_parameters():
                if parameter.shape == (case.shape.experts,) and "bias" in name:
                    parameter.zero_()
        return lambda logits: nullcontext(logits @ eye.to(logits))
    x = case.tokens(count=tokens)
    torch.manual_seed(case.seed)  # for a noise in training, which is part of the logits
    if built.logits_call(x) is None:
        return None

    @contextmanager
    def swap(logits: Tensor) -> Iterator[Tensor]:
        x = case.tokens(count=len(logits))  # outside, where its calls do not count
        found = built.logits_call(x)
        assert found is not None
        place, own = found

        def made(number: int, result: Any) -> Any:
            # a loss may compute them once more; what was made of those in their place is none of them
            if number == place or same(result, own):
                return logits.to(result.dtype).view(result.shape)
            return result

        with calls_of(built.scope, made=made):
            yield x

    return swap


def _held(built: Built, x: Tensor, named: str | None) -> Tensor | None:
    """The loss after a forward pass: at the attribute that the claim names, or the one scalar that is returned."""
    if named is not None and named != "returned":
        built.call(x)
        held: object = built.module
        for part in named.split("."):
            held = getattr(held, part, None)
        return _one_scalar([held] if isinstance(held, Tensor) else [])
    if built.case.candidate.kind == "router":
        return _one_scalar(built.route(x).aux.values())
    size = Size(tokens=len(x), experts=built.case.shape.experts, activated=built.case.shape.activated)
    returned = _one_scalar(leaf for _, leaf in leaves_of(built.call(x), size))
    if returned is not None or built.router is None:
        return returned
    return _one_scalar(built.route(x).aux.values())


def _one_scalar(found: Iterable[Tensor]) -> Tensor | None:
    scalars = [t for t in found if t.numel() == 1 and t.is_floating_point()]
    return scalars[0].reshape(()) if len(scalars) == 1 else None


def _scalar(value: object) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ClaimError(f"the auxiliary loss gives {type(value).__name__}, not one number")
    return value.reshape(())


def _wanted(aux: Auxiliary, share: float, first: int = 0) -> Tensor:
    """[T, E] logits: ``share`` of the tokens want the a experts from ``first``, the others all experts in turn."""
    token = torch.arange(aux.tokens)
    start = torch.where(token < round(share * aux.tokens), torch.full_like(token, first), token % aux.experts)
    chosen = (start[:, None] + torch.arange(aux.activated)) % aux.experts
    # slightly apart, so that no two chosen experts tie
    heights = _CONFIDENT + 0.01 * torch.arange(aux.activated, 0, -1)
    unwanted = torch.full((aux.tokens, aux.experts), -_CONFIDENT)
    return unwanted.scatter(1, chosen, heights.expand(aux.tokens, -1)).to(aux.device)
