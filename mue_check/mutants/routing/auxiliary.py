"""Right auxiliary losses: functions of the logits of all layers that grow as fewer experts take the load.

N sum_e f_e P_e, with P_e the mean probability of expert e (sums to 1) and f_e its share of the assignments. Its value
at even load is its floor: with f_e = 1/N the sum is N/N * sum P = 1 whatever P, and with P_e = 1/N it is sum f = 1
whatever f. Where f counts assignments per token instead it sums to a, and the floor is a. With all tokens on the
same a experts it is N/a, or N. The floor is no bound: f carries no gradient, and where f and P disagree (an expert
that wins often and narrowly, another that wins seldom and surely) the value falls below it: f = (2/3, 1/3) with
P = (.34, .66) gives .89 of it. With f held, as the gradient holds it, probability on a loaded expert always costs.
"""

import torch
from torch import Tensor

from mue_check.mutants.routing.gates import SwitchRouter, Weighted, wide
from mue_check.routing.claim import RoutingSpec

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


class SwitchLossRouter(SwitchRouter):
    """Switch's router that keeps its last forward's auxiliary loss in an attribute, for the training loop to add."""

    routing_spec = RoutingSpec(
        gate="softmax",
        order="score_first",
        weight_sum="free",
        top_k=1,
        fp32_gate=True,
        auxiliary_loss="auxiliary_loss",
    )
    auxiliary_loss: Tensor | None = None

    def forward(self, x: Tensor) -> Weighted:
        """Weights and indices, [T, 1] each."""
        logits = self.logits(x)
        self.auxiliary_loss = self.loss(logits)
        return self.choose(logits)

    def loss(self, logits: Tensor) -> Tensor:
        """Switch's loss of this one layer."""
        return switch_loss((logits,), self.n_experts, self.top_k)
