"""Right models of three more kinds, written as users write them: GPT-2, a vision transformer of torch's layers, and a
mixture of stacked experts in the style of Qwen3. ``MISTAKES`` break them one by one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BASE, HEAD, VOCABULARY, CONTEXT, EXPERTS = 32, 16, 64, 16, 8
STD = 0.1


class GPTBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.mlp_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.c_attn(self.ln_1(x)).unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        x = x + self.c_proj(F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x))))


class GPT2(nn.Module):
    """Learned positions, biases, and a readout that is the embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, width), nn.Embedding(CONTEXT, width)
        self.h = nn.ModuleList(GPTBlock(width) for _ in range(2))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, VOCABULARY, bias=False)
        self.lm_head.weight = self.wte.weight
        self.width, self.scale = width, BASE / width

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return {"logits": self.lm_head(self.ln_f(x)) * self.scale}


class ViT(nn.Module):
    """Of torch's own layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 2, 2)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(STD * torch.randn(1, 17, width))
        layer = nn.TransformerEncoderLayer(width, width // HEAD, 2 * width, 0.1, "gelu", 1e-5, True, True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)
        self.width, self.scale = width, BASE / width

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.patch(image).flatten(2).mT
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1) + self.pos_embed
        x = self.encoder(x)
        return self.head(x[:, 0] * self.scale), x


class Router(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(EXPERTS, width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, chosen = F.linear(x, self.weight).softmax(-1).topk(2)
        return weights / weights.sum(-1, keepdim=True), chosen


class SparseMoeBlock(nn.Module):
    """Experts as two stacked tensors, [E, D, 2F] and [E, F, D]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = Router(width)
        self.gate_up_proj = nn.Parameter(torch.empty(EXPERTS, width, width))
        self.down_proj = nn.Parameter(torch.empty(EXPERTS, width // 2, width))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x)
        share = torch.zeros(*x.shape[:-1], EXPERTS).scatter(-1, chosen, weights)
        gate, up = torch.einsum("btd,edf->btef", x, self.gate_up_proj).chunk(2, -1)
        return torch.einsum("btef,efd,bte->btd", F.silu(gate) * up, self.down_proj, share)


class MoeLayer(nn.Module):
    """Grouped queries, normed heads, a mixture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.k_proj, self.v_proj = (nn.Linear(width, width // 2, bias=False) for _ in range(2))
        self.q_norm, self.k_norm = nn.RMSNorm(HEAD), nn.RMSNorm(HEAD)
        self.mlp = SparseMoeBlock(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.input_layernorm(x)
        q, k, v = (p(y).unflatten(-1, (-1, HEAD)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        y = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, is_causal=True, enable_gqa=True)
        x = x + self.o_proj(y.transpose(1, 2).flatten(2))
        return x + self.mlp(self.post_attention_layernorm(x))


class Qwen3Moe(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(MoeLayer(width) for _ in range(2))
        self.norm, self.lm_head = nn.RMSNorm(width), nn.Linear(width, VOCABULARY, bias=False)
        self.width, self.scale = width, BASE / width

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x)) * self.scale


_NO_FAN_IN = ("wte", "wpe", "lm_head", "embed", "patch", "pos_embed", "cls_token", "head")


def is_hidden(name: str, p: Tensor) -> bool:
    """A matrix of which both sides grow, or a router: its fan-in grows."""
    return p.ndim > 1 and not name.startswith(_NO_FAN_IN)


@dataclass(frozen=True)
class Written:
    """The user's functions. A mistake changes a model as it is drawn, given the width over the base, or a rate."""

    kind: Callable[[int], nn.Module]
    change: Callable[[Any, float], None] | None = None
    rates: dict[str, float] = field(default_factory=dict)
    """Exponents of the ratio by which rates of parameters with that in their name are off."""
    first_seed: int = 0

    @torch.no_grad()
    def model(self, width: int) -> nn.Module:
        torch.manual_seed(torch.initial_seed() + self.first_seed)
        model, ratio = self.kind(width), width / BASE
        for name, p in model.named_parameters():
            if p.ndim > 1 and name != "cls_token":
                nn.init.normal_(p, std=STD * (ratio**-0.5 if is_hidden(name, p) else 1))
        if self.change is not None:
            self.change(model, ratio)
        return model

    def optimizer(self, model: Any, lr: float) -> torch.optim.Optimizer:
        groups = []
        for name, p in model.named_parameters():
            off = next((power for part, power in self.rates.items() if part in name), 0.0)
            groups.append({"params": [p], "lr": lr * (model.width / BASE) ** (off - is_hidden(name, p))})
        return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        inputs, labels = batch
        found = model(inputs)
        logits = found["logits"] if isinstance(found, dict) else found[0] if isinstance(found, tuple) else found
        return F.cross_entropy(logits.flatten(0, -2), labels.flatten())

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed + self.first_seed)
        while True:
            if self.kind is ViT:
                labels = torch.randint(10, (32,), generator=generator)
                yield labels.view(-1, 1, 1, 1) / 5 - 1 + torch.randn(32, 3, 8, 8, generator=generator), labels
            else:
                start = torch.randint(VOCABULARY, (8, 1), generator=generator)
                steps = torch.randint(1, 4, (8, CONTEXT), generator=generator).cumsum(1)
                tokens = torch.cat((start, start + steps), 1) % VOCABULARY
                yield tokens[:, :-1], tokens[:, 1:]


RIGHT = {"gpt2": Written(GPT2), "vit": Written(ViT), "qwen3_moe": Written(Qwen3Moe)}


def _times(path: str, power: float) -> Callable[[Any, float], None]:
    def change(model: Any, ratio: float) -> None:
        model.get_parameter(path).mul_(ratio**power)

    return change


def _without_multiplier(model: Any, ratio: float) -> None:
    model.scale = 1.0


MISTAKES: dict[str, tuple[Written, str]] = {
    "positions with the hidden": (replace(RIGHT["gpt2"], rates={"wpe": -1}), "wpe.weight"),
    "biases with the hidden": (replace(RIGHT["gpt2"], rates={"c_fc.bias": -1}), "h.*.c_fc.bias"),
    "tied readout unscaled": (replace(RIGHT["gpt2"], change=_without_multiplier), "lm_head"),
    "norms too fast": (replace(RIGHT["gpt2"], rates={"ln_1": 1}), "h.*.ln_1.weight"),
    "patches with the hidden": (replace(RIGHT["vit"], rates={"patch.weight": -1}), "patch.weight"),
    "projection init unscaled": (
        replace(RIGHT["vit"], change=_times("encoder.layers.1.self_attn.in_proj_weight", 0.5)),
        "encoder.layers.*.self_attn.in_proj_weight",
    ),
    "class token slow": (replace(RIGHT["vit"], rates={"cls_token": -1}), "cls_token"),
    "router unscaled": (replace(RIGHT["qwen3_moe"], rates={"gate.weight": 1}), "layers.*.mlp.gate.weight"),
    "experts unscaled": (replace(RIGHT["qwen3_moe"], rates={"down_proj": 1}), "layers.*.mlp.down_proj"),
    "expert init unscaled": (
        replace(RIGHT["qwen3_moe"], change=_times("layers.0.mlp.down_proj", 0.5)),
        "layers.*.mlp.down_proj",
    ),
}
