"""Mistakes in the auxiliary loss: rows 13 to 16 of the table."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mue_check.mutants.routing.auxiliary import Logits, SwitchLossRouter, assigned, probabilities, switch_loss
from mue_check.mutants.routing.bug import Bug
from mue_check.mutants.routing.gates import MixtralRouter
from mue_check.routing.claim import RoutingSpec


def pooled_layers(logits: Logits, n_experts: int, top_k: int) -> Tensor:
    """All layers' tokens in one heap before the product: layers that collapse on different experts look even."""
    return switch_loss((torch.cat(logits),), n_experts, top_k)


def softmax_of_softmax(logits: Logits, n_experts: int, top_k: int) -> Tensor:
    """The gate hands over probabilities under the name of logits, and the loss takes their softmax: nearly uniform."""
    recorded = tuple(probabilities(layer) for layer in logits)
    return switch_loss(recorded, n_experts, top_k)


class _Ride(torch.autograd.Function):
    """The first argument as it is; in the backward pass the second gets a gradient of 1."""

    @staticmethod
    def forward(ctx: Any, carrier: Tensor, loss: Tensor) -> Tensor:
        return carrier

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient.new_ones(())


def ride_not_taken(logits: Logits, n_experts: int, top_k: int) -> Tensor:
    """The loss rides on the logits through an autograd function whose result nobody keeps; its value is for the log."""
    loss = switch_loss(logits, n_experts, top_k)
    for layer in logits:
        _Ride.apply(layer, loss)  # type: ignore[no-untyped-call]
    return loss.detach()


class LossForTheLog(SwitchLossRouter):
    """The attribute that the training loop adds to its loss holds a number for the log."""

    def loss(self, logits: Tensor) -> Tensor:
        """Right in value."""
        return super().loss(logits).detach()


def sum_over_tokens(logits: Logits, n_experts: int, top_k: int) -> Tensor:
    """Divided by the tokens once instead of twice: twice the tokens, twice the loss."""
    losses = [assigned(layer, top_k).mean(0) @ probabilities(layer).sum(0) for layer in logits]
    return torch.stack(losses).mean() * n_experts / top_k


def _claim(loss: Callable[..., Tensor]) -> RoutingSpec:
    return replace(MixtralRouter.routing_spec, auxiliary_loss=f"{loss.__module__}:{loss.__name__}")


AUXILIARY = (
    Bug(
        row=13,
        name="pooled_layers",
        summary="layers are pooled before the product: each may collapse, all together look even",
        seen="huggingface/transformers #28255, #31464",
        candidate="auxiliary_loss",
        caught_by="aux-layers",
        factory=pooled_layers,
        claim=_claim(pooled_layers),
        twin=switch_loss,
    ),
    Bug(
        row=14,
        name="softmax_of_softmax",
        summary="softmax of probabilities: a collapsed router pays hardly more than an even one",
        seen="huggingface/transformers #45120",
        candidate="auxiliary_loss",
        caught_by="aux-imbalance",
        factory=softmax_of_softmax,
        claim=_claim(softmax_of_softmax),
        twin=switch_loss,
    ),
    Bug(
        row=15,
        name="ride_not_taken",
        summary="the loss rides on a tensor that is thrown away: right in the log, no gradient",
        seen="NVIDIA-NeMo/Automodel #1408",
        candidate="auxiliary_loss",
        caught_by="aux-gradient",
        factory=ride_not_taken,
        claim=_claim(ride_not_taken),
        twin=switch_loss,
    ),
    Bug(
        row=15,
        name="loss_for_the_log",
        summary="the router's attribute holds the loss without its graph",
        seen="NVIDIA-NeMo/Automodel #1408",
        candidate="router",
        caught_by="aux-gradient",
        factory=LossForTheLog,
        claim=SwitchLossRouter.routing_spec,
        twin=SwitchLossRouter,
    ),
    Bug(
        row=16,
        name="sum_over_tokens",
        summary="the loss grows with the tokens of a micro-batch, so its weight depends on accumulation",
        seen="NVIDIA/Megatron-LM #1652, PR#3768",
        candidate="auxiliary_loss",
        caught_by="aux-split",
        factory=sum_over_tokens,
        claim=_claim(sum_over_tokens),
        twin=switch_loss,
    ),
)
