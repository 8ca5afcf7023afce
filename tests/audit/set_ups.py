"""Small models as people write them (nanoGPT, torchtune, mixtures), odd optimizers, and how to audit them."""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check import HyperParameters, get_rule, parse_scenario, scenario_of
from mue_check.audit import AuditReport, audit_model, init_parameters, param_groups
from mue_check.mutants.routing.experts import SwiGLU
from tests.specimens import Experts, normalized, spread

REFERENCE = "d=32,L=1,H=32,dh=16,B=128,T=1000"
BASE = HyperParameters(init_std=0.02)
Make = Callable[[], nn.Module]


def linear(inputs: int, outputs: int, bias: bool = False) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=bias)


def attend(x_BTD: Tensor, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    split = (*x_BTD.shape[:2], heads, x_BTD.shape[2] // heads)
    q, k, v = (part.view(split).transpose(1, 2) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x_BTD.shape)


class Attention(nn.Module):
    """A fused qkv, as nanoGPT has it."""

    def __init__(self, c: SimpleNamespace) -> None:
        super().__init__()
        self.heads, d = c.n_head, c.n_embd
        self.c_attn, self.c_proj = linear(d, 3 * d, c.bias), linear(d, d, c.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(attend(x, *self.c_attn(x).split(x.shape[2], 2), self.heads))


class FeedForward(nn.Module):
    def __init__(self, c: SimpleNamespace) -> None:
        super().__init__()
        d = c.n_embd
        self.c_fc, self.c_proj = linear(d, 4 * d, c.bias), linear(4 * d, d, c.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, c: SimpleNamespace) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(c.n_embd, bias=c.bias), nn.LayerNorm(c.n_embd, bias=c.bias)
        self.attn, self.mlp, self.c = Attention(c), FeedForward(c), c

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.c.m_attn * self.attn(self.ln_1(x))
        return x + self.c.m_mlp * self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """nanoGPT with its configuration; ``m_*`` multiply in the forward pass."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        usual = {"n_layer": 2, "n_head": 4, "n_embd": 64, "vocab_size": 80, "block_size": 32, "bias": False}
        c = self.config = SimpleNamespace(**{**usual, "m_attn": 1.0, "m_mlp": 1.0, "m_out": 1.0, **changes})
        wte, wpe = nn.Embedding(c.vocab_size, c.n_embd), nn.Embedding(c.block_size, c.n_embd)
        blocks, last = nn.ModuleList(Block(c) for _ in range(c.n_layer)), nn.LayerNorm(c.n_embd, bias=c.bias)
        self.transformer = nn.ModuleDict({"wte": wte, "wpe": wpe, "h": blocks, "ln_f": last})
        self.lm_head = linear(c.n_embd, c.vocab_size)

    def stream(self, tokens: Tensor) -> Tensor:
        t = self.transformer
        x = t["wte"](tokens) + t["wpe"](torch.arange(tokens.shape[1]))
        for block in t["h"]:  # type: ignore[union-attr]
            x = block(x)
        return t["ln_f"](x)

    def forward(self, tokens: Tensor) -> tuple[Tensor, None]:
        return self.lm_head(self.stream(tokens)[:, [-1]]) * self.config.m_out, None


class Scale(nn.Module):
    """torchtune's norm, whose gain is called scale."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.scale)


class Mixture(nn.Module):
    """Sigmoid scores, top a, normalized; ``factor`` multiplies the routed sum."""

    def __init__(self, d: int, total: int, active: int) -> None:
        super().__init__()
        self.gate, self.active, self.factor = linear(d, total), active, 1.0

    def routed(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return normalized(self.gate(rows).sigmoid(), self.active)


class Listed(Mixture):
    """A list of experts."""

    def __init__(self, d: int, hidden: int, total: int, active: int) -> None:
        super().__init__(d, total, active)
        self.experts = Experts(SwiGLU(d, hidden) for _ in range(total))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        return self.factor * self.experts.mixed(rows, *self.routed(rows)).view_as(x)


class Stack(nn.Module):
    """All experts in three tensors that are read by the layer: [E, in, out], [E, out, in] or flat [E h, d]."""

    def __init__(self, d: int, hidden: int, total: int, layout: str) -> None:
        super().__init__()
        self.sizes, self.layout = (total, hidden, d), layout
        up, down = {
            "in_out": ((total, d, hidden), (total, hidden, d)),
            "out_in": ((total, hidden, d), (total, d, hidden)),
            "flat": ((total * hidden, d), (total * hidden, d)),
        }[layout]
        self.w1, self.w3, self.w2 = (nn.Parameter(torch.randn(shape) * 0.02) for shape in (up, up, down))

    def matrices(self) -> Iterable[Tensor]:
        """[E, h, d], [E, h, d], [E, h, d]."""
        for name in ("w1", "w3", "w2"):
            whole: Tensor = getattr(self, name)
            if self.layout == "flat":
                yield whole.view(self.sizes)
            else:
                yield whole if (self.layout == "out_in") == (name != "w2") else whole.transpose(1, 2)


class Stacked(Mixture):
    def __init__(self, d: int, hidden: int, total: int, active: int, layout: str = "in_out") -> None:
        super().__init__(d, total, active)
        self.experts = Stack(d, hidden, total, layout)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        weights = spread(*self.routed(rows), self.experts.sizes[0])
        up, gate, down = self.experts.matrices()
        hidden = F.silu(torch.einsum("td,ehd->teh", rows, up)) * torch.einsum("td,ehd->teh", rows, gate)
        return self.factor * torch.einsum("teh,ehd,te->td", hidden, down, weights).view_as(x)


class LlamaAttention(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.output_proj = (linear(d, d) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.output_proj(attend(x, self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads))


class Layer(nn.Module):
    def __init__(self, d: int, heads: int, ffn: nn.Module) -> None:
        super().__init__()
        self.sa_norm, self.attn, self.mlp_norm = Scale(d), LlamaAttention(d, heads), Scale(d)
        self.add_module("mlp" if isinstance(ffn, SwiGLU) else "moe", ffn)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.sa_norm(x))
        ffn = self._modules.get("mlp") or self._modules["moe"]
        assert ffn is not None
        return x + ffn(self.mlp_norm(x))


class Llama(nn.Module):
    """torchtune's names, without a configuration; ``ffn`` makes each layer's feed-forward."""

    def __init__(self, ffn: Callable[[], nn.Module], *, d: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(80, d)
        self.layers = nn.ModuleList(Layer(d, heads, ffn()) for _ in range(layers))
        self.norm, self.output = Scale(d), linear(d, 80)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tok_embeddings(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.output(self.norm(x))


class Masters:
    """An optimizer that steps copies of the parameters and writes them back; ``writes`` = False is the bug."""

    def __init__(self, groups: list[dict[str, Any]], *, writes: bool = True) -> None:
        self.pairs = [(p, p.detach().float().clone()) for g in groups for p in g["params"]]
        copies, self.writes = {id(p): copy for p, copy in self.pairs}, writes
        self.inner = torch.optim.AdamW([{**g, "params": [copies[id(p)] for p in g["params"]]} for g in groups])

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.inner.param_groups

    @property
    def state(self) -> dict[Tensor, Any]:
        return self.inner.state

    @torch.no_grad()
    def step(self) -> None:
        for p, copy in self.pairs:
            copy.grad = copy.grad if p.grad is None else p.grad.float()
        self.inner.step()
        for p, copy in self.pairs:
            if self.writes:
                p.copy_(copy)


class Several:
    """Several optimizers as one, whose state is joined at each access."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for o in self.optimizers for group in o.param_groups]

    @property
    def state(self) -> dict[Tensor, Any]:
        return {p: state for o in self.optimizers for p, state in o.state.items()}

    def step(self) -> None:
        for o in self.optimizers:
            o.step()


class Plain:
    """A scheduler that is not torch's and leaves no mark in the groups: a warm-up from 0, or one rate for all."""

    def __init__(self, optimizer: torch.optim.Optimizer, *, warmup: int = 10, rate: float | None = None) -> None:
        self.groups, self.warmup, self.count = optimizer.param_groups, warmup, -1
        self.peaks = [rate or group["lr"] for group in self.groups]
        self.step()

    def step(self) -> None:
        self.count += 1
        for group, peak in zip(self.groups, self.peaks, strict=True):
            group["lr"] = peak * min(1.0, self.count / self.warmup)


def made(
    make: Make, target: str | None = None, *, rule: str = "complete_mue", seed: int = 0, **asked: Any
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """A model drawn as prescribed, and the prescribed groups."""
    torch.manual_seed(seed)
    model, source = make(), parse_scenario(REFERENCE)
    own = scenario_of(model, batch=128, steps=1000) if target is None else parse_scenario(target, default=source)
    prescription = get_rule(rule).prescribe(source, own)
    init_parameters(model, prescription, BASE, **asked)
    return model, param_groups(model, prescription, BASE, **asked)


def audited(model: nn.Module, optimizer: object, scheduler: object = None, **asked: Any) -> AuditReport:
    return audit_model(model, optimizer, scheduler, **{"reference": REFERENCE, "base": BASE, **asked})


def right(make: Make, target: str | None = None, **asked: Any) -> AuditReport:
    model, groups = made(make, target, **asked)
    return audited(model, torch.optim.AdamW(groups), target=target, **asked)
