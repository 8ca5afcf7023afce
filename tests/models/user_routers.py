"""Routers as users write them, for the tests of user_router: what they return, keep and draw."""

import torch
from torch import Tensor, nn

from mue_check.routing.claim import RoutingSpec
from tests import specimens
from tests.specimens import Gated, normalized, spread

CAPACITY = RoutingSpec(kind="capacity", capacity_factor=1.25)


class Sigmoid(Gated):
    """A copy of builtin:sigmoid_norm."""


class Softmax(specimens.Softmax):
    """A copy of builtin:softmax_norm, with its logits and another order of parts."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.logits(x)
        top, indices = logits.topk(self.top_k, dim=-1)
        return {"chosen": indices, "logits": logits, "weights": top.softmax(-1)}


class Mlp(nn.Module):
    """Two matrices, a norm, and biases that the constructor draws."""

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.up, self.out = nn.Linear(d_model, 2 * d_model), nn.Linear(2 * d_model, n_experts)
        self.temperature = nn.Parameter(torch.tensor(2.0))
        self.start = nn.Parameter(torch.arange(n_experts) / n_experts)
        self.top_k = top_k

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.out(torch.relu(self.up(self.norm(x)))) / self.temperature + self.start
        weights, indices = normalized(logits.softmax(-1), self.top_k)
        return indices, weights


class Megatron(Gated):
    """Dense probabilities and a map, both [T, E]."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.scores(x)
        chosen = spread(torch.ones_like(scores), scores.topk(self.top_k, dim=-1).indices, self.n).bool()
        probs = torch.where(chosen, scores, 0)
        return probs / probs.sum(-1, keepdim=True), chosen


class Capacity(Megatron):
    """The same with at most 1.25 T a / E tokens per expert, first come, first served; the rest is dropped."""

    routing_spec = CAPACITY

    def room(self, chosen: Tensor) -> Tensor:
        """The choices [T, E] that find room."""
        return chosen & (chosen.cumsum(0) <= -(-5 * len(chosen) * self.top_k // (4 * self.n)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        probs, chosen = super().forward(x)
        kept = self.room(chosen)
        return torch.where(kept, probs, 0), kept


class DroppedSlots(Capacity):
    """Weights and indices, where -1 marks the slot of a token that found no room."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, indices = Gated.forward(self, x)
        kept = self.room(spread(torch.ones_like(weights), indices, self.n).bool()).gather(1, indices)
        return weights, torch.where(kept, indices, -1)


class ExpertChoice(Gated):
    """A copy of builtin:expert_choice."""

    routing_spec = RoutingSpec(kind="expert_choice", weight_sum="free", causal=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.logits(x).softmax(-1)
        capacity = max(1, -(-len(x) * self.top_k // self.n))
        return tuple(scores.T.topk(capacity, dim=-1))


class Branching(Sigmoid):
    """vmap cannot follow a branch on a value."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.abs().max() > 1e9:
            x = x / x.abs().max()
        return super().forward(x)


class Counting(Gated):
    """Moves its selection bias in training, in place, and counts its steps by assignment."""

    steps: Tensor

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__(d_model, n_experts, top_k)
        self.register_buffer("bias", torch.zeros(n_experts))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.scores(x)
        indices = (scores.detach() + self.bias).topk(self.top_k, dim=-1).indices
        if self.training:
            load = spread(torch.ones_like(scores), indices, self.n).sum(0)
            self.get_buffer("bias").add_(torch.sign(load.mean() - load), alpha=0.01)
            self.steps = self.steps + 1
        weights = scores.gather(1, indices)
        return weights / weights.sum(-1, keepdim=True), indices


class Noisy(Gated):
    """Noise on its logits in training."""

    def logits(self, x: Tensor) -> Tensor:
        logits = super().logits(x)
        return logits + torch.randn_like(logits) if self.training else logits


class Auxiliary(Gated):
    """DeepSpeed's order: a loss, then the routing."""

    def forward(self, x: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        logits = self.logits(x)
        weights, indices = normalized(torch.sigmoid(logits), self.top_k)
        load = spread(torch.ones_like(weights), indices, self.n).mean(0)
        return (load * logits.softmax(-1).mean(0)).sum(), weights, indices


class DeclaredAuxiliary(Auxiliary):
    routing_spec = RoutingSpec(returns={"aux": 0, "weights": 1, "indices": 2})


class TrainOnlyAuxiliary(DeclaredAuxiliary):
    """The same loss in training, and None in evaluation."""

    def forward(self, x: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        loss, weights, indices = super().forward(x)
        return loss if self.training else None, weights, indices


class _Hide(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights, loss):
        ctx.save_for_backward(loss)
        return weights.clone()

    @staticmethod
    def backward(ctx, gradient):
        (loss,) = ctx.saved_tensors
        return gradient, torch.ones_like(loss)


class HiddenAuxiliary(Auxiliary):
    """The same loss only in the backward pass, as in Megatron; vmap cannot map such a function."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loss, weights, indices = super().forward(x)
        return _Hide.apply(weights, loss), indices


class Hashed(nn.Module):
    """No parameters: a fixed random projection that each seed draws."""

    projection: Tensor

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        self.register_buffer("projection", torch.randn(d_model, n_experts))
        self.top_k = top_k

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        indices = (x @ self.projection).topk(self.top_k, dim=-1).indices
        return torch.full(indices.shape, 1 / self.top_k, device=x.device), indices


ROUTERS = (
    Sigmoid,
    Softmax,
    Mlp,
    Megatron,
    Capacity,
    DroppedSlots,
    ExpertChoice,
    Counting,
    Noisy,
    Auxiliary,
    DeclaredAuxiliary,
    TrainOnlyAuxiliary,
    Hashed,
)
"""Those that vmap can stack."""
