"""Routers as users write them, for the drop-in's tests."""

import torch
from torch import Tensor, nn

from mue_check.routing.claim import RoutingSpec


class Gated(nn.Module):
    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, n_experts, bias=False)
        self.top_k = top_k


class Sigmoid(Gated):
    """A copy of builtin:sigmoid_norm."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, indices = torch.sigmoid(self.gate(x)).topk(self.top_k, dim=-1)
        return weights / weights.sum(-1, keepdim=True), indices


class Softmax(Gated):
    """A copy of builtin:softmax_norm, with its logits and another order of parts."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.gate(x)
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
        weights, indices = logits.softmax(-1).topk(self.top_k, dim=-1)
        return indices, weights / weights.sum(-1, keepdim=True)


class Megatron(Gated):
    """Dense probabilities and a map, both [T, E]."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = torch.sigmoid(self.gate(x))
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(1, scores.topk(self.top_k, dim=-1).indices, True)
        probs = torch.where(chosen, scores, 0)
        return probs / probs.sum(-1, keepdim=True), chosen


class Capacity(Gated):
    """Megatron's with at most 1.25 T a / E tokens per expert, first come first served; the rest is dropped."""

    routing_spec = RoutingSpec(kind="capacity", capacity_factor=1.25)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = torch.sigmoid(self.gate(x))
        chosen = torch.zeros_like(scores).scatter(1, scores.topk(self.top_k, dim=-1).indices, 1.0)
        room = -(-5 * len(x) * self.top_k // (4 * scores.shape[1]))
        probs = scores * chosen / (scores * chosen).sum(-1, keepdim=True)
        kept = (chosen > 0) & (chosen.cumsum(0) <= room)
        return torch.where(kept, probs, 0), kept


class DroppedSlots(Gated):
    """Weights and indices, where -1 marks the slot of a token that found no room."""

    routing_spec = RoutingSpec(kind="capacity", capacity_factor=1.25)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = torch.sigmoid(self.gate(x))
        weights, indices = scores.topk(self.top_k, dim=-1)
        chosen = torch.zeros_like(scores).scatter(1, indices, 1.0)
        room = -(-5 * len(x) * self.top_k // (4 * scores.shape[1]))
        kept = (chosen.cumsum(0) <= room).gather(1, indices)
        return weights / weights.sum(-1, keepdim=True), torch.where(kept, indices, -1)


class ExpertChoice(Gated):
    """A copy of builtin:expert_choice."""

    routing_spec = RoutingSpec(kind="expert_choice", weight_sum="free", causal=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.gate(x).softmax(-1)
        capacity = max(1, -(-len(x) * self.top_k // scores.shape[1]))
        weights, indices = scores.T.topk(capacity, dim=-1)
        return weights, indices


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
        scores = torch.sigmoid(self.gate(x))
        indices = (scores.detach() + self.bias).topk(self.top_k, dim=-1).indices
        if self.training:
            load = torch.zeros_like(scores).scatter(1, indices, 1.0).detach().sum(0)
            self.get_buffer("bias").add_(torch.sign(load.mean() - load), alpha=0.01)
            self.steps = self.steps + 1
        weights = scores.gather(1, indices)
        return weights / weights.sum(-1, keepdim=True), indices


class Noisy(Gated):
    """Noise on its logits in training."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.gate(x)
        if self.training:
            logits = logits + torch.randn_like(logits)
        weights, indices = torch.sigmoid(logits).topk(self.top_k, dim=-1)
        return weights / weights.sum(-1, keepdim=True), indices


class Auxiliary(Gated):
    """DeepSpeed's order: a loss, then the routing."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.gate(x)
        weights, indices = torch.sigmoid(logits).topk(self.top_k, dim=-1)
        load = torch.zeros_like(logits).scatter(1, indices, 1.0).mean(0)
        return (load * logits.softmax(-1).mean(0)).sum(), weights / weights.sum(-1, keepdim=True), indices


class DeclaredAuxiliary(Auxiliary):
    routing_spec = RoutingSpec(returns={"aux": 0, "weights": 1, "indices": 2})


class TrainOnlyAuxiliary(Auxiliary):
    """The same loss, and None beside an evaluation."""

    routing_spec = RoutingSpec(returns={"aux": 0, "weights": 1, "indices": 2})

    def forward(self, x: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:  # type: ignore[override]
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
    """The same loss in the backward pass alone, as Megatron has it; vmap knows nothing of such a function."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
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
