"""A mixture of experts in the style of Qwen3-MoE, with learning rates per group: an example for `mue_check model`.

mue_check model my_model.py --axis width --sizes 64,128,256
mue_check model my_model.py --axis experts --sizes 4,8,16
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY, HEAD, CONTEXT = 96, 16, 32
BASE_WIDTH, BASE_LAYERS = 64, 2
INIT_STD = 0.1
unit = "nats"  # of the loss


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.q_norm, self.k_norm = nn.RMSNorm(HEAD), nn.RMSNorm(HEAD)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        q, k, v = (p(x).view(batch, time, -1, HEAD) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = (t.transpose(1, 2) for t in (self.q_norm(q), self.k_norm(k), v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1 / HEAD)
        return self.o_proj(y.transpose(1, 2).reshape(batch, time, width))


class Expert(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Mixture(nn.Module):
    def __init__(self, width: int, hidden: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(Expert(width, hidden) for _ in range(experts))
        self.top_k = top_k
        self.scale = top_k * width / (top_k * hidden)  # R A of Complete-muE

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        weights, chosen = self.gate(tokens).softmax(-1).topk(self.top_k)
        weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            token, place = torch.where(chosen == index)
            out = out.index_add(0, token, expert(tokens[token]) * weights[token, place, None])
        return self.scale * out.view_as(x)


class Layer(nn.Module):
    def __init__(self, width: int, layers: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.self_attn = Attention(width)
        self.mlp = Mixture(width, width // 2, experts, top_k)
        self.multiplier = BASE_LAYERS / layers

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.multiplier * self.self_attn(self.attention_norm(x))
        return x + self.multiplier * self.mlp(self.mlp_norm(x))


class Model(nn.Module):
    def __init__(self, width: int, layers: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(Layer(width, layers, experts, top_k) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.lm_head = nn.Linear(width, VOCABULARY, bias=False)
        self.width = width
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                std = INIT_STD * ((BASE_WIDTH / width) ** 0.5 if name.startswith("layers.") else 1)
                if "down_proj" in name:
                    std *= (top_k * (width // 2) / width) ** 0.5  # the root of active over backbone width
                nn.init.normal_(parameter, std=std)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x)) * (BASE_WIDTH / self.width)


def model(width: int = BASE_WIDTH, layers: int = BASE_LAYERS, experts: int = 8, top_k: int = 2) -> Model:
    return Model(width, layers, experts, top_k)


def optimizer(model: Model, lr: float) -> torch.optim.AdamW:
    hidden = [p for name, p in model.named_parameters() if name.startswith("layers.") and p.ndim == 2]
    others = [p for name, p in model.named_parameters() if not (name.startswith("layers.") and p.ndim == 2)]
    factor = BASE_WIDTH / model.width
    groups = [{"params": hidden, "lr": lr * factor, "weight_decay": 0.1 / factor}, {"params": others, "lr": lr}]
    return torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.95))


def loss(model: Model, batch: Tensor) -> Tensor:
    logits = model(batch[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def batches(seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        start = torch.randint(VOCABULARY, (8, 1), generator=generator)
        steps = torch.randint(1, 4, (8, CONTEXT), generator=generator).cumsum(1)
        yield torch.cat((start, start + steps), 1) % VOCABULARY
