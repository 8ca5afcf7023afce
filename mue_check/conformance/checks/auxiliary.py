"""The load-balancing loss: least when even, growing with imbalance, layer by layer, and felt by the router."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from mue_check.conformance.case import Built, Case
from mue_check.conformance.registry import Finding, check, failed, passed, skipped
from mue_check.errors import ClaimError

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
    if aux is None:
        return skipped(_NONE)
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
    if aux is None:
        return skipped(_NONE)
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
    if aux is None or not aux.layered:
        return skipped(_NONE if aux is None else "the loss sees one layer at a time")
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
    if aux is None:
        return skipped(_NONE)
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
    if aux is None:
        return skipped(_NONE)
    if aux.experts == aux.activated:
        return skipped("the load is even when all experts are taken")
    logits = (_wanted(aux, 0.75) / 4).requires_grad_()
    value = aux.value([logits])
    if not value.requires_grad:
        return failed("the loss carries no gradient", causes=(15,))
    (gradient,) = torch.autograd.grad(value, logits, allow_unused=True)
    largest = 0.0 if gradient is None else float(gradient.abs().max())
    if gradient is None or not largest > 1e-9:
        return failed(f"the largest gradient on the logits is {largest:.2g}", causes=(15,))
    crowded = float(gradient[:, : aux.activated].sum() - gradient[:, aux.activated :].mean() * aux.activated)
    if crowded <= 0:
        return failed(f"a step down the gradient makes the crowded experts more crowded ({crowded:.3g})")
    return passed(f"largest gradient on the logits {largest:.3g}, away from the crowded experts")


_NONE = "no auxiliary loss is claimed or returned"


def _auxiliary(case: Case) -> Auxiliary | None:
    """The loss that the claim names, or the one scalar that the router returns or holds after a forward pass."""
    named, shape = case.claim.auxiliary_loss, case.shape
    # a multiple of E, so that an even load exists
    tokens = shape.experts * max(2, -(-shape.tokens // shape.experts))
    if named is not None and ":" in named:
        module, _, name = named.partition(":")
        function = getattr(importlib.import_module(module), name)

        def value(layers: list[Tensor]) -> Tensor:
            return _scalar(function(tuple(layers), shape.experts, shape.activated))

        return Auxiliary(
            value=value,
            layered=True,
            experts=shape.experts,
            activated=shape.activated,
            tokens=tokens,
            device=case.device,
        )
    built = case.build(train=True)
    if _held(built, case.tokens(), named) is None:
        if named is not None:
            raise ClaimError(f"the claim names the auxiliary loss {named!r}, and no scalar is found there")
        return None
    weight = built.gate_weight()
    if (
        weight is None
        or shape.d < shape.experts
        or not (case.found.linear or built.route(case.tokens()).logits is not None)
    ):
        return None
    with torch.no_grad():
        # logits are then the tokens' first E entries
        eye = torch.eye(shape.experts, shape.d).to(weight)
        weight.copy_(eye)
        for name, parameter in (built.router or built.module).named_parameters():
            if parameter.shape == (shape.experts,) and "bias" in name:
                parameter.zero_()

    def driven(layers: list[Tensor]) -> Tensor:
        (logits,) = layers
        found = _held(built, logits @ eye.to(logits), named)
        assert found is not None
        return found

    return Auxiliary(
        value=driven, layered=False, experts=shape.experts, activated=shape.activated, tokens=tokens, device=case.device
    )


def _held(built: Built, x: Tensor, named: str | None) -> Tensor | None:
    routing = built.route(x)
    if named is not None and named != "returned":
        found: object = built.module
        for part in named.split("."):
            found = getattr(found, part, None)
        return found if isinstance(found, Tensor) and found.numel() == 1 else None
    scalars = [t for t in routing.aux.values() if t.numel() == 1 and t.is_floating_point()]
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
