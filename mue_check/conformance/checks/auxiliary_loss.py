"""Find a candidate's load-balancing loss and evaluate it at given logits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mue_check.conformance.case import BuiltCandidate, ConformanceCase
from mue_check.conformance.check import CheckOutcome, skipped, unknown
from mue_check.conformance.logits import logit_setter
from mue_check.conformance.reading import route
from mue_check.conformance.router_probe import router_of
from mue_check.conformance.torch_calls import without_noise
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
    if loss_of_forward(built, case.tokens(), named) is None:
        if named is not None:
            raise ClaimError(f"the claim names the auxiliary loss {named!r}, and there is no scalar")
        return skipped("no auxiliary loss is claimed or returned")

    def value(layers: list[Tensor]) -> Tensor:
        assert with_logits is not None
        (logits,) = layers
        with without_noise(built.module), with_logits(logits) as x:
            found = loss_of_forward(built, x, named)
        assert found is not None
        return found

    loss = AuxiliaryLoss(value=value, layered=False, case=case)
    with without_noise(built.module):
        with_logits = logit_setter(built, loss.tokens)
    if with_logits is None:
        reason = "there is an auxiliary loss, and no way to set the logits: claim auxiliary_loss = 'module:function'"
        return skipped(reason) if named is None else unknown(reason)
    reason = _why_no_balance(loss) if named is None and shape.experts > shape.activated else ""
    return skipped(reason) if reason else loss


def _why_no_balance(loss: AuxiliaryLoss) -> str:
    """Why an unclaimed scalar is not judged as a balancing loss: a z-loss, a number for the log; else empty."""
    other = "the returned scalar does not depend on balance; claim auxiliary_loss if there is another"
    even, crowded = loss.value([loss.logits(0.0)]), loss.value([loss.logits(1.0)])
    growth = float(crowded.detach() - even.detach())
    slack = SLACK * max(abs(float(even.detach())), abs(float(crowded.detach())))
    if abs(growth) > slack:
        return "" if growth > 0 or even.requires_grad else other
    if _has_own_logits(loss.case):
        return "the returned scalar is computed from other logits than the router's; claim auxiliary_loss"
    softer = loss.value([0.5 * loss.logits(0.0)])
    # a scalar with a gradient that depends on no logit is a broken loss
    return "" if even.requires_grad and abs(float(softer.detach() - even.detach())) <= slack else other


@torch.no_grad()
def _has_own_logits(case: ConformanceCase) -> bool:
    """Whether the scalar of a block, which ignores the router's logits, changes with the router's weights."""
    built, x = case.build(train=True), case.tokens()
    router = router_of(built)
    if case.is_router or router is None:
        return False
    with without_noise(built.module):
        before = loss_of_forward(built, x.clone(), None)
        for weight in router.parameters():
            weight.mul_(3.0)
        after = loss_of_forward(built, x.clone(), None)
    return before is not None and after is not None and not torch.allclose(before, after, rtol=SLACK)


def loss_of_forward(built: BuiltCandidate, x: Tensor, named: str | None) -> Tensor | None:
    """The loss after a forward pass: at the attribute that the claim names, or the one scalar that is returned."""
    scalars = _named_or_returned(built, x, named)
    return scalars[0][1].reshape(()) if len(scalars) == 1 else None


def scalars_of_forward(built: BuiltCandidate, x: Tensor) -> list[tuple[str, Tensor]]:
    """Each scalar that a forward pass returns, and the loss at the attribute that the claim names."""
    named = built.case.claim.auxiliary_loss
    scalars = _named_or_returned(built, x, None)
    if named is not None and ":" not in named and named != "returned":
        scalars += _named_or_returned(built, x, named)
    return scalars


def _named_or_returned(built: BuiltCandidate, x: Tensor, named: str | None) -> list[tuple[str, Tensor]]:
    if named is not None and named != "returned":
        built.call(x)
        value: object = built.module
        for part in named.split("."):
            value = getattr(value, part, None)
        return _scalars([(named, value)])
    if not built.case.is_router:
        returned = _scalars(leaves_of(built.call(x), built.size(x)))
        if len(returned) == 1 or router_of(built) is None:
            return returned
    return _scalars(route(built, x).aux.items())


def _scalars(values: Iterable[tuple[object, object]]) -> list[tuple[str, Tensor]]:
    """Path and value of each scalar."""
    return [
        (".".join(map(str, path)) if isinstance(path, tuple) else str(path), value)
        for path, value in values
        if isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point()
    ]


def _as_scalar(value: object) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ClaimError(f"the auxiliary loss returns {type(value).__name__}, expected one number")
    return value.reshape(())
