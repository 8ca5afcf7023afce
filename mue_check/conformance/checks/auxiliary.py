"""The load-balancing loss: lowest when even, growing with imbalance, per layer, and with a gradient on the router."""

from collections.abc import Callable
from functools import wraps
from itertools import pairwise

import torch

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import Check, CheckOutcome, failed, passed, skipped
from mue_check.conformance.checks.auxiliary_loss import (
    SLACK,
    AuxiliaryLoss,
    find_auxiliary_loss,
    scalars_of_forward,
)
from mue_check.conformance.checks.compare import similar_tokens
from mue_check.conformance.checks.gradients import constant_at_top1

_SENSITIVE = 0.7
_EVEN_ANYWAY = "with a = E the load is always even"


def needs_loss(
    run: Callable[[ConformanceCase, AuxiliaryLoss], CheckOutcome],
) -> Callable[[ConformanceCase], CheckOutcome]:
    """A check of the candidate's auxiliary loss; skipped or unknown without one."""

    @wraps(run)
    def check(case: ConformanceCase) -> CheckOutcome:
        loss = find_auxiliary_loss(case)
        return loss if isinstance(loss, CheckOutcome) else run(case, loss)

    return check


@needs_loss
def aux_uniform(case: ConformanceCase, loss: AuxiliaryLoss) -> CheckOutcome:
    """The balancing loss is lowest where the load is even."""
    floor = loss.at(0.0)
    for share in (0.3, 0.6, 1.0):
        value = loss.at(share)
        if not value >= floor - SLACK * abs(floor):
            return failed(
                f"{value:.4g} where {share:.0%} of the tokens take the same experts, {floor:.4g} at even load",
                causes=(13, 14),
            )
    return passed(f"the minimum is {floor:.4g} at E={loss.experts}, a={loss.activated}")


@needs_loss
def aux_imbalance(case: ConformanceCase, loss: AuxiliaryLoss) -> CheckOutcome:
    """The loss grows with imbalance, to at least 0.7 E/a times its minimum when all tokens agree."""
    if loss.experts == loss.activated:
        return skipped(_EVEN_ANYWAY)
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    values = [loss.at(share) for share in shares]
    table = ", ".join(f"{share:.0%}: {value:.4g}" for share, value in zip(shares, values, strict=True))
    if any(b < a - SLACK * abs(a) for a, b in pairwise(values)):
        return failed(f"not monotone in the share of tokens that agree ({table})", causes=(13, 14))
    ratio = loss.experts / loss.activated
    if values[-1] < _SENSITIVE * ratio * values[0] or values[-1] <= values[0]:
        return failed(
            f"{values[-1] / values[0] if values[0] else 0:.3g} times its minimum when all tokens agree, E/a = "
            f"{ratio:.3g} ({table})",
            causes=(14, 13),
        )
    return passed(f"share of tokens that agree: {table}")


@needs_loss
def aux_layers(case: ConformanceCase, loss: AuxiliaryLoss) -> CheckOutcome:
    """Each layer is balanced by itself: collapsed layers do not cancel each other."""
    if not loss.layered:
        return skipped("the loss sees one layer at a time")
    if loss.experts == loss.activated:
        return skipped(_EVEN_ANYWAY)
    layers = [loss.logits(1.0, first) for first in range(0, loss.experts, loss.activated)]
    one, together = float(loss.value(layers[:1]).detach()), float(loss.value(layers).detach())
    measured = f"{len(layers)} collapsed layers give {together:.4g}, one gives {one:.4g}"
    return failed(measured, causes=(13,)) if together < _SENSITIVE * one else passed(measured)


@needs_loss
def aux_split(case: ConformanceCase, loss: AuxiliaryLoss) -> CheckOutcome:
    """The loss does not depend on the batch size: repeated tokens, or a second call, give the same value."""
    logits = loss.logits(0.5)
    once = float(loss.value([logits]).detach())
    for what, value in (
        ("the same tokens twice", float(loss.value([torch.cat([logits, logits])]).detach())),
        ("a second call", float(loss.value([logits]).detach())),
    ):
        if abs(value - once) > SLACK * abs(once):
            return failed(f"{what} gives {value:.4g}, once {once:.4g}", causes=(16,))
    return passed(f"{once:.4g} for a batch and for the same tokens twice")


@needs_loss
def aux_gradient(case: ConformanceCase, loss: AuxiliaryLoss) -> CheckOutcome:
    """The loss has a gradient on the router, and a step along it evens the load."""
    if loss.experts == loss.activated:
        return skipped(_EVEN_ANYWAY)
    logits = (loss.logits(0.75) / 4).requires_grad_()
    value = loss.value([logits])
    if not value.requires_grad:
        return failed("the loss carries no gradient", causes=(15,))
    (gradient,) = torch.autograd.grad(value, logits, allow_unused=True)
    largest = 0.0 if gradient is None else float(gradient.abs().max())
    if constant_at_top1(case) and not largest > 1e-9:
        return skipped("a loss of normalized weights is constant at a = 1: see router-gradient-top1")
    if gradient is None or not largest > 1e-9:
        return failed(f"the largest gradient on the logits is {largest:.2g}", causes=(15,))
    crowded = float(gradient[:, : loss.activated].sum() - gradient[:, loss.activated :].mean() * loss.activated)
    if crowded <= 0:
        return failed(f"a gradient step makes the crowded experts more crowded ({crowded:.3g})")
    return passed(f"largest gradient on the logits {largest:.3g}, away from the crowded experts")


def aux_finite(case: ConformanceCase) -> CheckOutcome:
    """Each scalar that is returned or kept as a loss is finite in both modes, and so is its gradient in training.

    Also where experts get no token, as for tokens that are all alike.
    """
    seen = 0
    for train in (True, False):
        built = case.build(train=train)
        for x, kind in ((case.tokens(), "random tokens"), (similar_tokens(case), "tokens that are alike")):
            for name, loss in scalars_of_forward(built, x):
                seen += 1
                where = (
                    f"the loss at {name} is {float(loss.detach()):.4g} in {'training' if train else 'evaluation'} mode"
                )
                if not bool(loss.isfinite()):
                    return failed(f"{where} ({kind})", causes=(35,))
                if train and loss.requires_grad:
                    trained = [p for p in built.module.parameters() if p.requires_grad]
                    found = torch.autograd.grad(loss, trained, allow_unused=True)
                    if not all(bool(g.isfinite().all()) for g in found if g is not None):
                        return failed(f"{where}, and its gradient is not finite ({kind})", causes=(35,))
    return passed("finite in both modes") if seen else skipped("no scalar is returned or claimed")


CHECKS = (
    Check(run=aux_finite, source="arXiv 1701.06538 (the load loss divides by the noise)", since="0.4", once=True),
    Check(run=aux_uniform, source="arXiv 2101.03961, eq. 4"),
    Check(run=aux_imbalance, source="arXiv 2101.03961, eq. 4-6: E sum f_e P_e"),
    Check(run=aux_layers, source="huggingface/transformers #28255"),
    Check(run=aux_split, source="NVIDIA/Megatron-LM #1652"),
    Check(run=aux_gradient, source="NVIDIA-NeMo/Automodel #1408"),
)
