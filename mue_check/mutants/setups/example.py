"""A small mixture with the names that transformers uses, for the audit's mutants and tests: a model as users have."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check.mutants.routing.blocks import spread
from mue_check.mutants.routing.experts import FusedExperts
from mue_check.mutants.routing.gates import CompleteMueRouter


@dataclass(kw_only=True)
class ExampleConfig:
    """The configuration, spelled as transformers spells it."""

    hidden_size: int = 64
    num_hidden_layers: int = 2
    head_dim: int = 16
    num_experts: int = 8
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 48
    n_shared_experts: int = 1
    vocab_size: int = 64
    scoring_func: str = "sigmoid"
    tied: bool = False


class Attention(nn.Module):
    """Causal attention; ``scaling`` multiplies its logits."""

    def __init__(self, config: ExampleConfig) -> None:
        super().__init__()
        d = config.hidden_size
        self.head_dim, self.scaling = config.head_dim, config.head_dim**-0.5
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(d, d, bias=False) for _ in range(4))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D]."""
        heads = (*x_BTD.shape[:2], -1, self.head_dim)
        q, k, v = (p(x_BTD).view(heads).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scaling)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(x_BTD.shape))
        return out


class Experts(FusedExperts):
    """All experts' matrices in two tensors."""

    def forward(self, x_TD: Tensor, indices_TK: Tensor, weights_TK: Tensor) -> Tensor:  # type: ignore[override]
        """[T, D]: every expert on every token, which is quick when it is this small."""
        y_ETD = super().forward(x_TD.expand(self.n_experts, *x_TD.shape))
        return torch.einsum("te,etd->td", spread(weights_TK, indices_TK, self.n_experts), y_ETD)


class SharedExperts(nn.Module):
    """The experts that see every token, as one."""

    def __init__(self, config: ExampleConfig) -> None:
        super().__init__()
        h, d = config.n_shared_experts * config.moe_intermediate_size, config.hidden_size
        self.gate_proj, self.up_proj = nn.Linear(d, h, bias=False), nn.Linear(d, h, bias=False)
        self.down_proj = nn.Linear(h, d, bias=False)

    def forward(self, x_TD: Tensor) -> Tensor:
        """[T, D]."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x_TD)) * self.up_proj(x_TD))
        return out


class Block(nn.Module):
    """Attention and a mixture, pre-norm, with the multipliers that the model was given."""

    def __init__(self, config: ExampleConfig, multipliers: Mapping[str, float]) -> None:
        super().__init__()
        d, total = config.hidden_size, config.num_experts
        self.input_layernorm, self.self_attn = nn.RMSNorm(d), Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(d)
        self.mlp = nn.ModuleDict(
            {
                "gate": CompleteMueRouter(d, total, config.num_experts_per_tok),
                "experts": Experts(d, config.moe_intermediate_size, total),
                "shared_experts": SharedExperts(config),
            }
        )
        self.multipliers = multipliers

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D]."""
        m = self.multipliers
        mixed: Tensor = self.self_attn(self.input_layernorm(x_BTD))
        x_BTD = x_BTD + mixed * m.get("attention_out", 1.0)
        y_TD = self.post_attention_layernorm(x_BTD).flatten(0, 1)
        weights, indices = self.mlp["gate"](y_TD)
        routed: Tensor = self.mlp["experts"](y_TD, indices, weights * m.get("router", 1.0))
        shared: Tensor = self.mlp["shared_experts"](y_TD)
        branch = routed * m.get("expert_down", 1.0) + shared * m.get("shared_down", 1.0)
        return x_BTD + branch.view(x_BTD.shape)


class ExampleMixture(nn.Module):
    """A mixture-of-experts language model. ``multipliers`` by role name are what its forward pass multiplies by."""

    def __init__(self, config: ExampleConfig, multipliers: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.config = config
        self.multipliers = dict(multipliers or {})
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, self.multipliers) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.embed_tokens.weight
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=1 / math.sqrt(config.hidden_size))

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits [B, T, V]."""
        x: Tensor = self.embed_tokens(tokens_BT)
        for block in self.layers:
            x = block(x)
        logits: Tensor = self.lm_head(self.norm(x))
        return logits * self.multipliers.get("unembedding", 1.0)
