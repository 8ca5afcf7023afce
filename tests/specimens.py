"""Bases of the tests' own routers, and specimens that differ from a base in a method or two."""

import torch
from torch import Tensor, nn


def variant(base: type[nn.Module], name: str, **methods) -> type[nn.Module]:
    """A subclass of ``base`` with these methods."""
    return type(name, (base,), methods)


def normalized(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    weights, indices = scores.topk(k, dim=-1)
    return weights / weights.sum(-1, keepdim=True), indices


def spread(weights: Tensor, indices: Tensor, n: int) -> Tensor:
    """Weights [T, a] in the columns of their experts, [T, E]."""
    return weights.new_zeros(len(weights), n).scatter(1, indices, weights)


class Gated(nn.Module):
    """Sigmoid scores, the best a, normalized; each step is a method."""

    gate_bias = False

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        self.n, self.top_k, self.gate = n_experts, top_k, nn.Linear(d_model, n_experts, bias=self.gate_bias)

    def logits(self, x):
        return self.gate(x)

    def scores(self, x):
        return torch.sigmoid(self.logits(x))

    def forward(self, x):
        return normalized(self.scores(x), self.top_k)


class Softmax(Gated):
    def scores(self, x):
        return self.logits(x).softmax(-1)


class Experts(nn.ModuleList):
    """A list of experts, each called on the tokens that chose it."""

    def mixed(self, rows: Tensor, weights: Tensor, indices: Tensor) -> Tensor:
        out = torch.zeros_like(rows)
        for e, expert in enumerate(self):
            token, slot = torch.where(indices == e)
            if len(token):
                out = out.index_add(0, token, expert(rows[token]) * weights[token, slot, None])
        return out
