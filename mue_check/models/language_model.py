"""The reference language model: pre-norm blocks, causal attention of fixed head width, SwiGLU or experts.

Multipliers come from the prescription and nowhere else: 1/m_L on the attention branch, those of ``FeedForward``, and
1/rho_d on the logits.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mue_check.models.attention import causal_attention
from mue_check.models.balancing import LayerRouting
from mue_check.models.feed_forward import FeedForward
from mue_check.models.parameters import Parameter, Parameters
from mue_check.models.pointwise import add_norm, rms_norm, scaled, wide
from mue_check.models.routers import Routers
from mue_check.models.tap import Tap, no_tap
from mue_check.routing.content_blind import place_keys
from mue_check.routing.variants import get_variant
from mue_check.rules import Prescription, Role
from mue_check.spec import REFERENCE_HEAD_WIDTH, ModelSpec


class LanguageModel:
    """A stack of language models with one spec and one prescription; holds no tensors itself."""

    def __init__(self, spec: ModelSpec, prescription: Prescription, *, vocab: int, context: int) -> None:
        def multiplier(role: Role) -> float:
            return prescription[role].forward_multiplier

        self.spec, self.vocab, self.context = spec, vocab, context
        self.feed_forward = FeedForward(spec, prescription)
        self.routers = self.feed_forward.routers
        self.by_place = self.routers is not None and get_variant(self.routers.experts.router).by_place
        self.parameters = tuple(self._declare())
        # logits go with 1/d_head (arXiv 2203.03466), normalized to the usual 1/sqrt at the reference head width
        self._attention_scale = math.sqrt(REFERENCE_HEAD_WIDTH) / spec.head_width * multiplier(Role.ATTENTION_QKV)
        self._attention_multiplier = multiplier(Role.ATTENTION_OUT)
        self._logit_multiplier = multiplier(Role.UNEMBEDDING)

    def forward(
        self,
        p: Parameters,
        inputs: Tensor,
        tap: Tap = no_tap,
        *,
        routers: Routers | None = None,
        layers: list[LayerRouting] | None = None,
    ) -> Tensor:
        """Next-token logits [R, B*T, V] of tokens [R, B, T]. How each layer routed is appended to ``layers``."""
        runs, _, positions = inputs.shape
        run = torch.arange(runs, device=inputs.device).view(-1, 1, 1)
        x = p["token_embedding"][run, inputs] + p["position_embedding"][:, None, :positions]
        x = x.flatten(1, 2)
        tap("embedding", x)
        place_RM = place_keys(inputs) if self.by_place else None
        y = rms_norm(x, p["block0.attention_norm"])
        for layer in range(self.spec.depth):
            prefix = f"block{layer}."
            branch = scaled(self._attention(p, prefix, y, positions, tap), self._attention_multiplier)
            tap(prefix + "attention_branch", branch)
            x, y = add_norm(x, branch, p[prefix + "ffn_norm"])
            branch = self.feed_forward(layer, p, y, routers=routers, place_RM=place_RM, tap=tap, layers=layers)
            tap(prefix + "ffn_branch", branch)
            last = layer + 1 == self.spec.depth
            x, y = add_norm(x, branch, p["final_norm" if last else f"block{layer + 1}.attention_norm"])
        tap("residual", x)
        logits = scaled(torch.bmm(y, p["unembedding"]), self._logit_multiplier)
        tap("logits", logits)
        return logits

    def losses(
        self,
        p: Parameters,
        inputs: Tensor,
        *,
        routers: Routers | None = None,
        layers: list[LayerRouting] | None = None,
    ) -> Tensor:
        """Mean cross-entropy per run, [R], in nats per token: tokens [R, B, T+1], each predicted from those before."""
        logits = self.forward(p, inputs[..., :-1], routers=routers, layers=layers)
        targets = inputs[..., 1:].flatten(1)
        loss = F.cross_entropy(wide(logits).flatten(0, 1), targets.flatten(), reduction="none")
        return loss.view(targets.shape).mean(1)

    def _attention(self, p: Parameters, prefix: str, y_RMD: Tensor, positions: int, tap: Tap) -> Tensor:
        runs, tokens, width = y_RMD.shape
        head = self.spec.head_width
        qkv = torch.bmm(y_RMD, p[prefix + "attention_qkv"].flatten(2)).view(-1, positions, 3, width // head, head)
        if tap is not no_tap:  # a fused kernel never forms them
            q, k, _ = qkv.permute(2, 0, 3, 1, 4)
            scores = (q @ k.transpose(-1, -2) * self._attention_scale).tril()
            tap(prefix + "attention_logits", scores.view(runs, -1, *scores.shape[1:]))
        mixed = causal_attention(qkv, self._attention_scale).view(runs, tokens, width)
        return torch.bmm(mixed, p[prefix + "attention_out"])

    def _declare(self) -> Iterator[Parameter]:
        d = self.spec.width

        def matrix(name: str, role: Role, *shape: int) -> Parameter:
            return Parameter(name=name, role=role, shape=shape)

        def gain(name: str) -> Parameter:
            return Parameter(name=name, role=Role.NORM_GAIN, shape=(d,), constant=1.0)

        yield matrix("token_embedding", Role.TOKEN_EMBEDDING, self.vocab, d)
        yield matrix("position_embedding", Role.POSITION_EMBEDDING, self.context, d)
        for layer in range(self.spec.depth):
            prefix = f"block{layer}."
            yield gain(prefix + "attention_norm")
            yield matrix(prefix + "attention_qkv", Role.ATTENTION_QKV, d, 3, d)
            yield matrix(prefix + "attention_out", Role.ATTENTION_OUT, d, d)
            yield gain(prefix + "ffn_norm")
            yield from self.feed_forward.declare(layer)
        yield gain("final_norm")
        yield matrix("unembedding", Role.UNEMBEDDING, d, self.vocab)
