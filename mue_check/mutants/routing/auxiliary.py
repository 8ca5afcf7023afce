"""Auxiliary losses, right and broken: functions of the logits of all layers that grow as fewer experts take the load.

N sum_e f_e P_e, with P_e the mean probability of expert e (sums to 1) and f_e its share of the assignments. Its value
at even load is its floor: with f_e = 1/N the sum is N/N * sum P = 1 for any P, and with P_e = 1/N it is sum f = 1
for any f. Where f counts assignments per token instead it sums to a, and the floor is a. With all tokens on the
same a experts it is N/a, or N. The floor is no bound: f carries no gradient, and where f and P disagree (an expert
that wins often and narrowly, another that wins seldom and surely) the value falls below it: f = (2/3, 1/3) with
P = (.34, .66) gives .89 of it. With f held, as the gradient holds it, probability on a loaded expert always costs.

Broken: rows 13 to 16 and 35 of the table of bugs.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mue_check.mutants.mutant import mistake
from mue_check.mutants.routing.gates import SwitchRouter, Weighted, wide

Logits = tuple[Tensor, ...]
"""Of each layer, [T, E]."""


def assigned(logits: Tensor, top_k: int) -> Tensor:
    """1 [T, E] where a token takes an expert, else 0; no gradient."""
    indices = logits.detach().topk(top_k, dim=-1).indices
    return torch.zeros_like(logits, dtype=wide(logits.dtype)).scatter(-1, indices, 1.0)


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over experts, in float32 at least."""
    return logits.softmax(-1, dtype=wide(logits.dtype))


def switch_loss(logits: Logits, n_experts: int, top_k: int) -> Tensor:
    """N sum_e f_e P_e with f the share of all assignments: 1 at even load (Switch, arXiv 2101.03961, equation 4).

    Layer by layer before the mean: pooled layers could each collapse and look even together.
    """
    losses = [assigned(layer, top_k).mean(0) @ probabilities(layer).mean(0) for layer in logits]
    return torch.stack(losses).mean() * n_experts / top_k


def mixtral_loss(logits: Logits, n_experts: int, top_k: int) -> Tensor:
    """The same with f the assignments per token, which sum to a: a at even load (transformers' formula, per layer)."""
    return top_k * switch_loss(logits, n_experts, top_k)


@mistake(13, "aux-layers", seen="huggingface/transformers #28255, #31464", twin=switch_loss)
def pooled_layers(logits: Logits, n_experts: int, top_k: int) -> Tensor:
    """Layers are pooled before the product: each may collapse, and all together look even."""
    return switch_loss((torch.cat(logits),), n_experts, top_k)


@mistake(14, "aux-imbalance", seen="huggingface/transformers #45120", twin=switch_loss)
def softmax_of_softmax(logits: Logits, n_experts: int, top_k: int) -> Tensor:
    """Softmax of probabilities: a collapsed router pays hardly more than an even one."""
    return switch_loss(tuple(probabilities(layer) for layer in logits), n_experts, top_k)


class _Ride(torch.autograd.Function):
    """The first argument as it is; in the backward pass the second gets a gradient of 1."""

    @staticmethod
    def forward(ctx: Any, carrier: Tensor, loss: Tensor) -> Tensor:
        return carrier

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient.new_ones(())


@mistake(15, "aux-gradient", seen="NVIDIA-NeMo/Automodel #1408", twin=switch_loss)
def ride_not_taken(logits: Logits, n_experts: int, top_k: int) -> Tensor:
    """The loss is attached to a tensor that is thrown away: right in the log, no gradient."""
    loss = switch_loss(logits, n_experts, top_k)
    for layer in logits:
        _Ride.apply(layer, loss)  # type: ignore[no-untyped-call]
    return loss.detach()


@mistake(16, "aux-split", seen="NVIDIA/Megatron-LM #1652, PR#3768", twin=switch_loss)
def sum_over_tokens(logits: Logits, n_experts: int, top_k: int) -> Tensor:
    """The loss grows with the tokens of a micro-batch, so its weight depends on accumulation."""
    losses = [assigned(layer, top_k).mean(0) @ probabilities(layer).sum(0) for layer in logits]
    return torch.stack(losses).mean() * n_experts / top_k


class SwitchLossRouter(SwitchRouter):
    """Switch's router that keeps its last forward's auxiliary loss in an attribute, for the training loop to add."""

    routing_spec = replace(SwitchRouter.routing_spec, auxiliary_loss="auxiliary_loss")
    auxiliary_loss: Tensor | None = None

    def forward(self, x: Tensor) -> Weighted:
        logits = self.logits(x)
        self.auxiliary_loss = self.loss(logits)
        return self.choose(logits)

    def loss(self, logits: Tensor) -> Tensor:
        """Switch's loss of this one layer."""
        return switch_loss((logits,), self.n_experts, self.top_k)


@mistake(15, "aux-gradient", seen="NVIDIA-NeMo/Automodel #1408")
class LossForTheLog(SwitchLossRouter):
    """The router's attribute holds the loss without its graph."""

    def loss(self, logits: Tensor) -> Tensor:
        return super().loss(logits).detach()


@mistake(35, "aux-finite", seen="common")
class EntropyOfTheLoad(SwitchLossRouter):
    """The loss is the negative entropy of the load, 0 log 0 and so NaN once an expert gets no token."""

    def loss(self, logits: Tensor) -> Tensor:
        share = assigned(logits, self.top_k).mean(0) * probabilities(logits).mean(0)
        share = share / share.sum()
        return (share * share.log()).sum()
