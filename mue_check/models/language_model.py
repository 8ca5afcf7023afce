"""The reference language model: pre-norm blocks, causal attention of fixed head width, SwiGLU or experts.

Multipliers come from the prescription and nowhere else: those of ``Blocks``, and 1/rho_d on the logits.
"""

from collections.abc import Iterator

from torch import Tensor

from mue_check.models.balancing import LayerRouting
from mue_check.models.blocks import FINAL_NORM, Blocks, norm_name
from mue_check.models.embedding import embedding
from mue_check.models.parameters import Parameter, Parameters
from mue_check.models.pointwise import add_norm, cross_entropy, norm_gains, scaled_product
from mue_check.models.routers import Routers
from mue_check.models.tap import Tap, no_tap
from mue_check.routing.content_blind import place_keys
from mue_check.rules import Prescription, Role
from mue_check.spec import ModelSpec


class LanguageModel:
    """A stack of language models with one spec and one prescription; holds no tensors itself."""

    def __init__(self, spec: ModelSpec, prescription: Prescription, *, vocab: int, context: int) -> None:
        self.spec, self.vocab, self.context = spec, vocab, context
        self.blocks = Blocks(spec, prescription, causal=True)
        self.routers = self.blocks.routers
        self.parameters = tuple(self._declare())
        self._norms = [parameter.name for parameter in self.parameters if parameter.role is Role.NORM_GAIN]
        self._logit_multiplier = prescription[Role.UNEMBEDDING].forward_multiplier

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
        positions = inputs.shape[2]
        x = embedding(p["token_embedding"], inputs).flatten(1, 2)
        gains = dict(zip(self._norms, norm_gains([p[name] for name in self._norms], x), strict=True))
        x, y = add_norm(x, p["position_embedding"][:, :positions], gains[self._norms[0]])
        tap("embedding", x)

        def join(x: Tensor, branch: Tensor, before: str, after: str) -> tuple[Tensor, Tensor]:
            return add_norm(x, branch, gains[after])

        y = self.blocks(
            p,
            x,
            y,
            join,
            positions=positions,
            gains=gains,
            routers=routers,
            place_RM=place_keys(inputs) if self.blocks.by_place else None,
            tap=tap,
            layers=layers,
        )
        logits = scaled_product(y, p["unembedding"], self._logit_multiplier)
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
        return cross_entropy(self.forward(p, inputs[..., :-1], routers=routers, layers=layers), inputs)

    def _declare(self) -> Iterator[Parameter]:
        d = self.spec.width

        def matrix(name: str, role: Role, *shape: int) -> Parameter:
            return Parameter(name=name, role=role, shape=shape)

        def gain(name: str) -> Parameter:
            return Parameter(name=name, role=Role.NORM_GAIN, shape=(d,), constant=1.0)

        yield matrix("token_embedding", Role.TOKEN_EMBEDDING, self.vocab, d)
        yield matrix("position_embedding", Role.POSITION_EMBEDDING, self.context, d)
        for layer in range(self.spec.depth):
            yield gain(norm_name(layer, "attention"))
            yield from self.blocks.declare_attention(layer)
            yield gain(norm_name(layer, "ffn"))
            yield from self.blocks.feed_forward.declare(layer)
        yield gain(FINAL_NORM)
        yield matrix("unembedding", Role.UNEMBEDDING, d, self.vocab)
