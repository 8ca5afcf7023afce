"""The reference language model: pre-norm blocks, causal attention of fixed head width, SwiGLU or experts.

Multipliers come from the prescription and nowhere else: 1/m_L on the attention branch, A (and 1/m_L) on
the feed-forward branch, A R on the routing weights, the shared experts' own, 1/rho_d on the logits.
"""

import math
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mue_check.models.attention import causal_attention
from mue_check.models.balancing import LayerRouting
from mue_check.models.experts import expert_product
from mue_check.models.load_steering import LoadSteering
from mue_check.models.parameters import Parameter, Parameters
from mue_check.models.pointwise import rms_norm
from mue_check.models.user_router.stacked import StackedUserRouter
from mue_check.routing.choice import Choice, scaled_weights
from mue_check.routing.content_blind import expected_draws, place_keys
from mue_check.routing.variants import get_variant, is_users, route
from mue_check.rules import Prescription, Role
from mue_check.spec import REFERENCE_HEAD_WIDTH, Dense, Experts, ModelSpec

EXPECTED_DRAWS = "expected_draws"
Tap = Callable[[str, Tensor], None]
"""Called with a coordinate's name and its activation [R, M, ...]."""


def _no_tap(name: str, value: Tensor) -> None:
    """The tap of a plain forward pass."""


def scaled(x: Tensor, multiplier: float) -> Tensor:
    """x * multiplier, without a pass over memory where the multiplier is 1."""
    return x if multiplier == 1 else x * multiplier


def wide(x: Tensor) -> Tensor:
    """bfloat16 as float32: for scores and losses, where rounding would decide."""
    return x.float() if x.dtype is torch.bfloat16 else x


class LanguageModel:
    """A stack of language models with one spec and one prescription; holds no tensors itself."""

    def __init__(self, spec: ModelSpec, prescription: Prescription, *, vocab: int, context: int) -> None:
        self.spec, self.vocab, self.context = spec, vocab, context
        self.experts = spec.feed_forward if isinstance(spec.feed_forward, Experts) else None
        self.router: StackedUserRouter | None = None
        if self.experts and is_users(self.experts.router):
            self.router = StackedUserRouter(self.experts, width=spec.width, depth=spec.depth)
        self.parameters = tuple(_declare(spec, vocab, context, self.router))

        def multiplier(role: Role) -> float:
            return prescription[role].forward_multiplier

        # logits go with 1/d_head (arXiv 2203.03466), normalized to the usual 1/sqrt at the reference head width
        self._attention_scale = math.sqrt(REFERENCE_HEAD_WIDTH) / spec.head_width * multiplier(Role.ATTENTION_QKV)
        self._attention_multiplier = multiplier(Role.ATTENTION_OUT)
        self._logit_multiplier = multiplier(Role.UNEMBEDDING)
        if self.experts:
            self._ffn_multiplier = multiplier(Role.EXPERT_DOWN) * multiplier(Role.ROUTER)
            self._shared_multiplier = multiplier(Role.SHARED_DOWN) if self.experts.shared else None
        else:
            self._ffn_multiplier = multiplier(Role.FFN_DOWN)

    def zero_bias(self, runs: int, device: torch.device) -> Tensor | None:
        """The selection bias before training, [L, R, E]; None where nothing balances by it towards an even load."""
        if self.experts is None or self.experts.balance != "selection_bias" or self.experts.load:
            return None
        return torch.zeros(self.spec.depth, runs, self.experts.total, device=device)

    def with_load(self, load: str) -> "LanguageModel":
        """The same model steered to another load: the same parameters fit both."""
        assert self.experts is not None
        scored = get_variant(self.experts.router).scored
        experts = replace(self.experts, load=load, balance="selection_bias" if scored else self.experts.balance)
        other = copy(self)
        other.spec, other.experts = replace(self.spec, feed_forward=experts), experts
        return other

    def steering(self, runs: int, device: torch.device) -> LoadSteering | None:
        """What steers the load of scored routing before training; None where nothing does."""
        if self.experts is None or not self.experts.load or self.experts.router == "content_blind":
            return None
        return LoadSteering(self.experts, depth=self.spec.depth, runs=runs, device=device)

    def tables(self, device: torch.device) -> dict[str, Tensor]:
        """Constants that a forward pass reads, by name: equal for all runs."""
        blind = self.experts is not None and self.experts.router == "content_blind"
        expected_E = expected_draws(self.experts, device) if self.experts and blind else None
        return {} if expected_E is None else {EXPECTED_DRAWS: expected_E}

    def logits(
        self,
        p: Parameters,
        tokens_RBT: Tensor,
        tap: Tap = _no_tap,
        *,
        bias_LRE: Tensor | None = None,
        steering: LoadSteering | None = None,
        layers: list[LayerRouting] | None = None,
    ) -> Tensor:
        """Next-token logits [R, B*T, V] of integer tokens [R, B, T]; what each router did is appended to ``layers``."""
        runs, _, positions = tokens_RBT.shape
        run = torch.arange(runs, device=tokens_RBT.device).view(-1, 1, 1)
        x = p["token_embedding"][run, tokens_RBT] + p["position_embedding"][:, None, :positions]
        x = x.flatten(1, 2)
        tap("embedding", x)
        blind = self.experts is not None and self.experts.router == "content_blind"
        place_RM = place_keys(tokens_RBT) if blind else None
        for layer in range(self.spec.depth):
            prefix = f"block{layer}."
            y = rms_norm(x, p[prefix + "attention_norm"])
            branch = scaled(self._attention(p, prefix, y, positions, tap), self._attention_multiplier)
            tap(prefix + "attention_branch", branch)
            x = x + branch
            y = rms_norm(x, p[prefix + "ffn_norm"])
            if self.experts is None:
                branch = self._dense(p, prefix, y)
            else:
                bias_RE = None if bias_LRE is None else bias_LRE[layer]
                decided = self._decide(p, layer, y, self.experts, bias_RE, steering, place_RM, tap)
                if layers is not None:
                    layers.append(decided)
                branch = self._mixture(p, prefix, y, decided.routing)
            tap(prefix + "ffn_branch", branch)
            x = x + branch
        tap("residual", x)
        logits = scaled(torch.bmm(rms_norm(x, p["final_norm"]), p["unembedding"]), self._logit_multiplier)
        tap("logits", logits)
        return logits

    def losses(
        self,
        p: Parameters,
        tokens_RBT: Tensor,
        *,
        bias_LRE: Tensor | None = None,
        steering: LoadSteering | None = None,
        layers: list[LayerRouting] | None = None,
    ) -> Tensor:
        """Mean cross-entropy per run, [R], in nats per token, predicting tokens[1:] from tokens[:-1]."""
        logits = self.logits(p, tokens_RBT[..., :-1], bias_LRE=bias_LRE, steering=steering, layers=layers)
        targets = tokens_RBT[..., 1:].flatten(1)
        loss = F.cross_entropy(wide(logits).flatten(0, 1), targets.flatten(), reduction="none")
        return loss.view(targets.shape).mean(1)

    def _attention(self, p: Parameters, prefix: str, y_RMD: Tensor, positions: int, tap: Tap) -> Tensor:
        runs, tokens, width = y_RMD.shape
        head = self.spec.head_width
        qkv = torch.bmm(y_RMD, p[prefix + "attention_qkv"].flatten(2)).view(-1, positions, 3, width // head, head)
        if tap is not _no_tap:  # a fused kernel never forms them
            q, k, _ = qkv.permute(2, 0, 3, 1, 4)
            scores = (q @ k.transpose(-1, -2) * self._attention_scale).tril()
            tap(prefix + "attention_logits", scores.view(runs, -1, *scores.shape[1:]))
        mixed = causal_attention(qkv, self._attention_scale).view(runs, tokens, width)
        return torch.bmm(mixed, p[prefix + "attention_out"])

    def _dense(self, p: Parameters, prefix: str, y_RMD: Tensor) -> Tensor:
        up, gate, down = (p[prefix + name] for name in ("ffn_up", "ffn_gate", "ffn_down"))
        return scaled(_swiglu(y_RMD, up, gate, down), self._ffn_multiplier)

    def _decide(
        self,
        p: Parameters,
        layer: int,
        y_RMD: Tensor,
        experts: Experts,
        bias_RE: Tensor | None,
        steering: LoadSteering | None,
        place_RM: Tensor | None,
        tap: Tap,
    ) -> LayerRouting:
        name = f"block{layer}.router"
        if self.router is not None:
            decided = self.router(layer, p, y_RMD)
            if tap is not _no_tap:
                logits_RME = decided.logits_RME
                logits_RME = self.router.logits(layer, p, y_RMD) if logits_RME is None else logits_RME
                if logits_RME is not None:
                    tap(name + "_logits", logits_RME)
            return decided
        logits_RME = wide(torch.bmm(y_RMD, p[name]))
        tap(name + "_logits", logits_RME)
        if steering is not None:
            bias_RE = steering.solve(layer, logits_RME)
        expected_E = p.get(EXPECTED_DRAWS)
        routing = route(logits_RME, experts, bias_RE=bias_RE, place_RM=place_RM, layer=layer, expected_E=expected_E)
        return LayerRouting(logits_RME, routing)

    def _mixture(self, p: Parameters, prefix: str, y_RMD: Tensor, routing: Choice) -> Tensor:
        up, gate, down = (p[prefix + name] for name in ("expert_up", "expert_gate", "expert_down"))
        # A R on the weights [R, M, K]: the routed sum is D / K times as large
        out = expert_product(y_RMD, up, gate, down, scaled_weights(routing, self._ffn_multiplier))
        if self._shared_multiplier is not None:
            up, gate, down = (p[prefix + name] for name in ("shared_up", "shared_gate", "shared_down"))
            out = out + scaled(_swiglu(y_RMD, up, gate, down), self._shared_multiplier)
        return out


def _swiglu(x: Tensor, up_RDF: Tensor, gate_RDF: Tensor, down_RFD: Tensor) -> Tensor:
    return torch.bmm(F.silu(torch.bmm(x, gate_RDF)) * torch.bmm(x, up_RDF), down_RFD)


def _declare(spec: ModelSpec, vocab: int, context: int, router: StackedUserRouter | None) -> Iterator[Parameter]:
    d = spec.width

    def matrix(name: str, role: Role, *shape: int) -> Parameter:
        return Parameter(name=name, role=role, shape=shape)

    def gain(name: str) -> Parameter:
        return Parameter(name=name, role=Role.NORM_GAIN, shape=(d,), constant=1.0)

    yield matrix("token_embedding", Role.TOKEN_EMBEDDING, vocab, d)
    yield matrix("position_embedding", Role.POSITION_EMBEDDING, context, d)
    for layer in range(spec.depth):
        prefix = f"block{layer}."
        yield gain(prefix + "attention_norm")
        yield matrix(prefix + "attention_qkv", Role.ATTENTION_QKV, d, 3, d)
        yield matrix(prefix + "attention_out", Role.ATTENTION_OUT, d, d)
        yield gain(prefix + "ffn_norm")
        ffn = spec.feed_forward
        if isinstance(ffn, Dense):
            yield matrix(prefix + "ffn_up", Role.FFN_UP, d, ffn.hidden)
            yield matrix(prefix + "ffn_gate", Role.FFN_GATE, d, ffn.hidden)
            yield matrix(prefix + "ffn_down", Role.FFN_DOWN, ffn.hidden, d)
            continue
        if router is None:
            yield matrix(prefix + "router", Role.ROUTER, d, ffn.total)
        else:
            yield from router.declare(layer)
        yield matrix(prefix + "expert_up", Role.EXPERT_UP, d, ffn.total, ffn.hidden)
        yield matrix(prefix + "expert_gate", Role.EXPERT_GATE, d, ffn.total, ffn.hidden)
        yield matrix(prefix + "expert_down", Role.EXPERT_DOWN, ffn.total, ffn.hidden, d)
        if ffn.shared:
            width = ffn.shared * ffn.hidden
            yield matrix(prefix + "shared_up", Role.SHARED_UP, d, width)
            yield matrix(prefix + "shared_gate", Role.SHARED_GATE, d, width)
            yield matrix(prefix + "shared_down", Role.SHARED_DOWN, width, d)
    yield gain("final_norm")
    yield matrix("unembedding", Role.UNEMBEDDING, d, vocab)
