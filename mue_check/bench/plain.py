"""The reference model written the ordinary way: torch.nn modules, one run's weights, no run axis.

A mixture comes in two forms: a ModuleList of experts, each of which computes the tokens routed to it, and one batched
product of all experts and all tokens.
"""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check.rules import Prescription, Role
from mue_check.spec import Dense, Experts, ModelSpec


class ComposedRMSNorm(nn.Module):
    """nn.RMSNorm out of single operations: vmap has no rule for the backward pass of CUDA's fused kernel."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


Norm = type[nn.RMSNorm] | type[ComposedRMSNorm]


class PlainAttention(nn.Module):
    """Causal attention with one projection for q, k and v."""

    def __init__(self, width: int, head: int, multiplier: float) -> None:
        super().__init__()
        self.head, self.multiplier = head, multiplier
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        batch, positions, width = x.shape
        q, k, v = self.qkv(x).view(batch, positions, 3, width // self.head, self.head).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(x.shape))
        return out * self.multiplier


class SwiGLU(nn.Module):
    """A dense feed-forward, or one expert."""

    def __init__(self, width: int, hidden: int, multiplier: float = 1.0) -> None:
        super().__init__()
        self.up, self.gate = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)
        self.multiplier = multiplier

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out if self.multiplier == 1 else out * self.multiplier


class PlainRouter(nn.Module):
    """Sigmoid scores; the a largest are normalized."""

    def __init__(self, width: int, experts: Experts, multiplier: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, experts.total, bias=False)
        self.activated, self.multiplier = experts.activated, multiplier

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and chosen experts, [M, a] each."""
        weights, chosen = torch.sigmoid(self.linear(x)).topk(self.activated, dim=-1)
        return weights / weights.sum(-1, keepdim=True) * self.multiplier, chosen


class ExpertLoop(nn.Module):
    """A mixture, expert by expert, each on its own tokens."""

    def __init__(self, width: int, experts: Experts, multiplier: float) -> None:
        super().__init__()
        self.router = PlainRouter(width, experts, multiplier)
        self.experts = nn.ModuleList(SwiGLU(width, experts.hidden) for _ in range(experts.total))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        flat = x.flatten(0, 1)
        weights, chosen = self.router(flat)
        out = torch.zeros_like(flat)
        for index, expert in enumerate(self.experts):
            token, place = torch.where(chosen == index)
            found = expert(flat[token]) * weights[token, place].unsqueeze(-1)
            out.index_add_(0, token, found.to(out.dtype))
        return out.view_as(x)


class ExpertProduct(nn.Module):
    """A mixture as batched products of all experts and all tokens; weights are 0 where a token is not routed."""

    def __init__(self, width: int, experts: Experts, multiplier: float) -> None:
        super().__init__()
        self.router = PlainRouter(width, experts, multiplier)
        self.total = experts.total
        self.up, self.gate = (nn.Parameter(torch.empty(experts.total, width, experts.hidden)) for _ in range(2))
        self.down = nn.Parameter(torch.empty(experts.total, experts.hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        flat = x.flatten(0, 1)
        weights, chosen = self.router(flat)
        combine = torch.zeros(len(flat), self.total, dtype=weights.dtype, device=x.device)
        combine = combine.scatter(-1, chosen, weights)
        hidden = F.silu(flat @ self.gate) * (flat @ self.up) * combine.T.unsqueeze(-1)
        return (hidden @ self.down).sum(0).view_as(x)


class PlainBlock(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, width: int, attention: PlainAttention, ffn: nn.Module, norm: Norm) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = (norm(width, eps=1e-6) for _ in range(2))
        self.attention, self.ffn = attention, ffn

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        x = x + self.attention(self.attention_norm(x))
        out: Tensor = x + self.ffn(self.ffn_norm(x))
        return out


class Plain(nn.Module):
    """The language model of one run. ``batched`` chooses the second form of a mixture."""

    def __init__(
        self,
        spec: ModelSpec,
        prescription: Prescription,
        *,
        vocab: int,
        context: int,
        batched: bool = False,
        norm: Norm = nn.RMSNorm,
    ) -> None:
        super().__init__()
        width = spec.width

        def multiplier(role: Role) -> float:
            return prescription[role].forward_multiplier

        def feed_forward() -> nn.Module:
            ffn = spec.feed_forward
            if isinstance(ffn, Dense):
                return SwiGLU(width, ffn.hidden, multiplier(Role.FFN_DOWN))
            kind = ExpertProduct if batched else ExpertLoop
            return kind(width, ffn, multiplier(Role.EXPERT_DOWN) * multiplier(Role.ROUTER))

        def attention() -> PlainAttention:
            return PlainAttention(width, spec.head_width, multiplier(Role.ATTENTION_OUT))

        self.tokens, self.positions = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(PlainBlock(width, attention(), feed_forward(), norm) for _ in range(spec.depth))
        self.norm, self.head = norm(width, eps=1e-6), nn.Linear(width, vocab, bias=False)
        self.head_multiplier = multiplier(Role.UNEMBEDDING)

    def forward(self, tokens: Tensor) -> Tensor:
        """Next-token logits [B*T, V] of tokens [B, T]."""
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[-1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x)) * self.head_multiplier
        return logits.flatten(0, 1)


def stored(model: Plain, weights: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, str, Tensor]]:
    """Each parameter, the stack's name for it, and its value in ``weights``, one run of the stack by name."""
    yield model.tokens.weight, "token_embedding", weights["token_embedding"]
    yield model.positions.weight, "position_embedding", weights["position_embedding"]
    for i, block in enumerate(model.blocks):
        own = {name.partition(".")[2]: value for name, value in weights.items() if name.startswith(f"block{i}.")}
        assert isinstance(block, PlainBlock)
        pairs: list[tuple[Tensor, str, Tensor]] = [
            (block.attention_norm.weight, "attention_norm", own["attention_norm"]),
            (block.ffn_norm.weight, "ffn_norm", own["ffn_norm"]),
            (block.attention.qkv.weight, "attention_qkv", own["attention_qkv"].flatten(1).T),
            (block.attention.out.weight, "attention_out", own["attention_out"].T),
            *_feed_forward(block.ffn, own),
        ]
        for parameter, name, value in pairs:
            yield parameter, f"block{i}.{name}", value
    yield model.norm.weight, "final_norm", weights["final_norm"]
    yield model.head.weight, "unembedding", weights["unembedding"].T


def _feed_forward(ffn: nn.Module, own: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, str, Tensor]]:
    matrices = ("up", "gate", "down")
    if isinstance(ffn, SwiGLU):
        for name in matrices:
            yield getattr(ffn, name).weight, f"ffn_{name}", own[f"ffn_{name}"].T
        return
    assert isinstance(ffn, ExpertLoop | ExpertProduct)
    yield ffn.router.linear.weight, "router", own["router"].T
    for name in matrices:
        value = own[f"expert_{name}"]
        by_expert = value if name == "down" else value.transpose(0, 1)  # [E, in, out]
        if isinstance(ffn, ExpertProduct):
            yield getattr(ffn, name), f"expert_{name}", by_expert
        else:
            for expert, part in zip(ffn.experts, by_expert, strict=True):
                yield getattr(expert, name).weight, f"expert_{name}", part.T
