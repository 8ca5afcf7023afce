"""The blocks of every family: attention and a feed-forward branch in turn, each joined to the residual stream.

Multipliers come from the prescription and nowhere else: 1/m_L on the attention branch, and those of ``FeedForward``.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from mue_check.models.attention import attention
from mue_check.models.balancing import LayerRouting
from mue_check.models.feed_forward import FeedForward
from mue_check.models.parameters import Parameter, Parameters
from mue_check.models.pointwise import scaled_product
from mue_check.models.routers import Routers
from mue_check.models.tap import Tap, no_tap
from mue_check.routing.variants import get_variant
from mue_check.rules import Prescription, Role
from mue_check.spec import REFERENCE_HEAD_WIDTH, ModelSpec

FINAL_NORM = "final_norm"
Join = Callable[[Tensor, Tensor, str, str], tuple[Tensor, Tensor]]
"""Called with the residual stream, a branch [R, M, D], and the names of the norm before the branch and of the next one.
Returns the stream after the branch, and its next norm."""


def norm_name(layer: int, branch: str) -> str:
    """The norm before a branch, "attention" or "ffn"."""
    return f"block{layer}.{branch}_norm"


class Blocks:
    """The blocks of one model; holds no tensors. ``routers`` are those of a mixture, without state."""

    def __init__(self, spec: ModelSpec, prescription: Prescription, *, causal: bool) -> None:
        self.spec, self.causal = spec, causal
        self.feed_forward = FeedForward(spec, prescription)
        self.routers = self.feed_forward.routers
        self.by_place = self.routers is not None and get_variant(self.routers.experts.router).by_place
        # logits go with 1/d_head (arXiv 2203.03466), normalized to the usual 1/sqrt at the reference head width
        form = math.sqrt(REFERENCE_HEAD_WIDTH) / spec.head_width
        self._scale = form * prescription[Role.ATTENTION_QKV].forward_multiplier
        self._attention_multiplier = prescription[Role.ATTENTION_OUT].forward_multiplier

    def declare_attention(self, layer: int) -> Iterator[Parameter]:
        """The parameters of one layer's attention."""
        d, prefix = self.spec.width, f"block{layer}."
        yield Parameter(name=prefix + "attention_qkv", role=Role.ATTENTION_QKV, shape=(d, 3, d))
        yield Parameter(name=prefix + "attention_out", role=Role.ATTENTION_OUT, shape=(d, d))

    def __call__(
        self,
        p: Parameters,
        x_RMD: Tensor,
        y_RMD: Tensor,
        join: Join,
        *,
        positions: int,
        gains: Mapping[str, Tensor] | None = None,
        routers: Routers | None = None,
        place_RM: Tensor | None = None,
        tap: Tap = no_tap,
        layers: list[LayerRouting] | None = None,
    ) -> Tensor:
        """The final norm [R, M, D] of a residual stream x, whose first norm is y. M = sequences * ``positions``.

        ``gains``: by name of the norm, if ``join`` is their ``add_norm``, which then may be computed with the branch.
        """
        x, y = x_RMD, y_RMD
        for layer in range(self.spec.depth):
            prefix, ffn_norm = f"block{layer}.", norm_name(layer, "ffn")
            branch = self._attention(p, prefix, y, positions, tap)
            tap(prefix + "attention_branch", branch)
            x, y = join(x, branch, norm_name(layer, "attention"), ffn_norm)
            last = layer + 1 == self.spec.depth
            after = FINAL_NORM if last else norm_name(layer + 1, "attention")
            if gains is not None and tap is no_tap:
                joined = self.feed_forward.add_norm(layer, p, x, y, gains[after])
                if joined is not None:
                    x, y = joined
                    continue
            branch = self.feed_forward(layer, p, y, routers=routers, place_RM=place_RM, tap=tap, layers=layers)
            tap(prefix + "ffn_branch", branch)
            x, y = join(x, branch, ffn_norm, after)
        tap("residual", x)
        return y

    def _attention(self, p: Parameters, prefix: str, y_RMD: Tensor, positions: int, tap: Tap) -> Tensor:
        runs, tokens, width = y_RMD.shape
        head = self.spec.head_width
        qkv = torch.bmm(y_RMD, p[prefix + "attention_qkv"].flatten(2)).view(-1, positions, 3, width // head, head)
        if tap is not no_tap:  # a fused kernel never forms them
            q, k, _ = qkv.permute(2, 0, 3, 1, 4)
            scores = q @ k.transpose(-1, -2) * self._scale
            scores = scores.tril() if self.causal else scores
            tap(prefix + "attention_logits", scores.view(runs, -1, *scores.shape[1:]))
        mixed = attention(qkv, self._scale, causal=self.causal).view(runs, tokens, width)
        return scaled_product(mixed, p[prefix + "attention_out"], self._attention_multiplier)
