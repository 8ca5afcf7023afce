"""Find a candidate's load-balancing loss and evaluate it at given logits."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mue_check.conformance.case import BuiltCandidate, ConformanceCase
from mue_check.conformance.check import CheckOutcome, skipped, unknown
from mue_check.conformance.logits import equals_logits, gate_weight, logit_source, logits_call, routing_scope
from mue_check.conformance.reading import route
from mue_check.conformance.router_probe import router_of
from mue_check.conformance.torch_calls import intercept_calls
from mue_check.errors import ClaimError
from mue_check.routing.adapter import leaves_of
from mue_check.routing.factory import auxiliary_function

SLACK = 0.02
_CONFIDENT = 8.0
"""Logit of the experts that a token prefers. The others have its negative, so that a sigmoid is certain of both."""


@dataclass(frozen=True, kw_only=True)
class AuxiliaryLoss:
    """The loss as a function of the logits of each layer; without ``layered``, of exactly one layer."""

    value: Callable[[list[Tensor]], Tensor]
    layered: bool
    case: ConformanceCase

    @property
    def experts(self) -> int:
        """E."""
        return self.case.shape.experts

    @property
    def activated(self) -> int:
        """a."""
        return self.case.shape.activated

    @property
    def tokens(self) -> int:
        """T: a multiple of E, so that an even load exists."""
        return self.experts * max(2, -(-self.case.shape.tokens // self.experts))

    def logits(self, share: float, first: int = 0) -> Tensor:
        """[T, E]: ``share`` of the tokens prefer the a experts from ``first`` on, the others all experts in turn."""
        token = torch.arange(self.tokens)
        start = torch.where(token < round(share * self.tokens), torch.full_like(token, first), token % self.experts)
        wanted = (start[:, None] + torch.arange(self.activated)) % self.experts
        # slightly different, so that no two wanted experts tie
        heights = _CONFIDENT + 0.01 * torch.arange(self.activated, 0, -1)
        unwanted = torch.full((self.tokens, self.experts), -_CONFIDENT)
        return unwanted.scatter(1, wanted, heights.expand(self.tokens, -1)).to(self.case.device)

    def at(self, share: float) -> float:
        """The loss of one layer in which ``share`` of the tokens want the same experts."""
        return float(self.value([self.logits(share)]).detach())


def find_auxiliary_loss(case: ConformanceCase) -> AuxiliaryLoss | CheckOutcome:
    """The loss that the claim names, or the one scalar that is returned and grows with imbalance; else why not."""
    named, shape = case.claim.auxiliary_loss, case.shape
    if named is not None and ":" in named:
        function = auxiliary_function(case.claim)
        return AuxiliaryLoss(
            value=lambda layers: _as_scalar(function(tuple(layers), shape.experts, shape.activated)),
            layered=True,
            case=case,
        )
    built = case.build(train=True)
    if _loss_of_forward(built, case.tokens(), named) is None:
        if named is not None:
            raise ClaimError(f"the claim names the auxiliary loss {named!r}, and there is no scalar")
        return skipped("no auxiliary loss is claimed or returned")

    def value(layers: list[Tensor]) -> Tensor:
        assert with_logits is not None
        (logits,) = layers
        with with_logits(logits) as x:
            found = _loss_of_forward(built, x, named)
        assert found is not None
        return found

    loss = AuxiliaryLoss(value=value, layered=False, case=case)
    with_logits = _logit_setter(built, loss.tokens)
    if with_logits is None:
        reason = "there is an auxiliary loss, and no way to set the logits: claim auxiliary_loss = 'module:function'"
        return skipped(reason) if named is None else unknown(reason)
    if named is None and shape.experts > shape.activated and not _depends_on_balance(loss):
        return skipped("the returned scalar does not depend on balance; claim auxiliary_loss if there is another")
    return loss


def _depends_on_balance(loss: AuxiliaryLoss) -> bool:
    """Whether an unclaimed scalar is a balancing loss, not a z-loss or a number for the log."""
    even, crowded = loss.value([loss.logits(0.0)]), loss.value([loss.logits(1.0)])
    growth = float(crowded.detach() - even.detach())
    slack = SLACK * max(abs(float(even.detach())), abs(float(crowded.detach())))
    if abs(growth) <= slack:
        softer = loss.value([0.5 * loss.logits(0.0)])
        # a scalar with a gradient that depends on no logit is a broken loss
        return even.requires_grad and abs(float(softer.detach() - even.detach())) <= slack
    return growth > 0 or even.requires_grad


def _logit_setter(built: BuiltCandidate, tokens: int) -> Callable[[Tensor], AbstractContextManager[Tensor]] | None:
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
                if parameter.shape == (case.shape.experts,) and "bias" in name:
                    parameter.zero_()
        return lambda logits: nullcontext(logits @ eye.to(logits))
    torch.manual_seed(case.seed)  # noise in training is part of the logits
    if logits_call(built, case.tokens(count=tokens)) is None:
        return None

    @contextmanager
    def replace_logits(logits: Tensor) -> Iterator[Tensor]:
        x = case.tokens(count=len(logits))  # outside of the interception, where its calls do not count
        found = logits_call(built, x)
        assert found is not None
        call, own = found

        def on_result(number: int, result: Any) -> Any:
            # a loss may compute the logits again
            if number == call or equals_logits(result, own):
                return logits.to(result.dtype).view(result.shape)
            return result

        with intercept_calls(routing_scope(built), on_result=on_result):
            yield x

    return replace_logits


def _loss_of_forward(built: BuiltCandidate, x: Tensor, named: str | None) -> Tensor | None:
    """The loss after a forward pass: at the attribute that the claim names, or the one scalar that is returned."""
    if named is not None and named != "returned":
        built.call(x)
        value: object = built.module
        for part in named.split("."):
            value = getattr(value, part, None)
        return _one_scalar([value] if isinstance(value, Tensor) else [])
    if not built.case.is_router:
        returned = _one_scalar(leaf for _, leaf in leaves_of(built.call(x), built.size(x)))
        if returned is not None or router_of(built) is None:
            return returned
    return _one_scalar(route(built, x).aux.values())


def _one_scalar(tensors: Iterable[Tensor]) -> Tensor | None:
    scalars = [t for t in tensors if t.numel() == 1 and t.is_floating_point()]
    return scalars[0].reshape(()) if len(scalars) == 1 else None


def _as_scalar(value: object) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ClaimError(f"the auxiliary loss returns {type(value).__name__}, expected one number")
    return value.reshape(())
