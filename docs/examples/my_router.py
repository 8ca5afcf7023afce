import torch
from torch import nn


class Router(nn.Module):
    def __init__(self, d_model, n_experts, top_k):
        super().__init__()
        self.gate, self.top_k = nn.Linear(d_model, n_experts, bias=False), top_k
        self.register_buffer("expert_bias", torch.zeros(n_experts))

    def forward(self, x):
        scores = self.gate(x).float().sigmoid() + self.expert_bias
        weights, indices = scores.topk(self.top_k, dim=-1)
        return weights / weights.sum(-1, keepdim=True), indices
