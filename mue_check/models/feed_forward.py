"""The feed-forward branch of each block: SwiGLU, dense or as a mixture of experts with shared ones.

Its multipliers come from the prescription: A (and 1/m_L) on the branch, A R on the routing weights, the shared experts'
own.
"""

from collections.abc import Iterator

from torch import Tensor

from mue_check.models import fused_dense
from mue_check.models.balancing import LayerRouting
from mue_check.models.experts import expert_product
from mue_check.models.parameters import Parameter, Parameters
from mue_check.models.pointwise import EPS, dense_swiglu
from mue_check.models.routers import Routers
from mue_check.models.tap import Tap, no_tap
from mue_check.routing.choice import Choice
from mue_check.rules import Prescription, Role
from mue_check.spec import Dense, ModelSpec


class FeedForward:
    """The branches of all layers; holds no tensors. ``routers`` are those of a mixture, without state."""

    def __init__(self, spec: ModelSpec, prescription: Prescription) -> None:
        def multiplier(role: Role) -> float:
            return prescription[role].forward_multiplier

        self.width, self.spec, self.routers = spec.width, spec.feed_forward, Routers.of(spec)
        if isinstance(self.spec, Dense):
            self.multiplier = multiplier(Role.FFN_DOWN)
        else:
            self.multiplier = multiplier(Role.EXPERT_DOWN) * multiplier(Role.ROUTER)
            self.shared_multiplier = multiplier(Role.SHARED_DOWN) if self.spec.shared else None

    def declare(self, layer: int) -> Iterator[Parameter]:
        """The parameters of one layer."""
        prefix, d = f"block{layer}.", self.width

        def matrix(name: str, role: Role, *shape: int) -> Parameter:
            return Parameter(name=prefix + name, role=role, shape=shape)

        if isinstance(self.spec, Dense):
            yield matrix("ffn_up", Role.FFN_UP, d, self.spec.hidden)
            yield matrix("ffn_gate", Role.FFN_GATE, d, self.spec.hidden)
            yield matrix("ffn_down", Role.FFN_DOWN, self.spec.hidden, d)
            return
        assert self.routers is not None
        yield from self.routers.declare(layer)
        yield matrix("expert_up", Role.EXPERT_UP, d, self.spec.total, self.spec.hidden)
        yield matrix("expert_gate", Role.EXPERT_GATE, d, self.spec.total, self.spec.hidden)
        yield matrix("expert_down", Role.EXPERT_DOWN, self.spec.total, self.spec.hidden, d)
        if self.spec.shared:
            width = self.spec.shared * self.spec.hidden
            yield matrix("shared_up", Role.SHARED_UP, d, width)
            yield matrix("shared_gate", Role.SHARED_GATE, d, width)
            yield matrix("shared_down", Role.SHARED_DOWN, width, d)

    def __call__(
        self,
        layer: int,
        p: Parameters,
        y_RMD: Tensor,
        *,
        routers: Routers | None = None,
        place_RM: Tensor | None = None,
        tap: Tap = no_tap,
        layers: list[LayerRouting] | None = None,
    ) -> Tensor:
        """The branch of one layer. How the layer routed is appended to ``layers``."""
        prefix = f"block{layer}."
        if isinstance(self.spec, Dense):
            return self.dense(p, prefix, y_RMD)
        routers = routers or self.routers
        assert routers is not None
        decided = routers.decide(layer, p, y_RMD, place_RM=place_RM, tap=tap)
        if layers is not None:
            layers.append(decided)
        return self.mixture(p, prefix, y_RMD, decided.routing)

    def add_norm(
        self, layer: int, p: Parameters, x_RMD: Tensor, y_RMD: Tensor, gain_RD: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """The residual stream after a dense layer, and its norm, where one kernel computes both; else None."""
        if not (isinstance(self.spec, Dense) and fused_dense.is_used(x_RMD, self.spec.hidden)):
            return None
        weights = _weights(p, f"block{layer}.ffn_")
        return fused_dense.dense_add_norm(x_RMD, y_RMD, weights, gain_RD, self.multiplier, EPS)

    def dense(self, p: Parameters, prefix: str, y_RMD: Tensor) -> Tensor:
        """A dense layer."""
        return dense_swiglu(y_RMD, *_weights(p, prefix + "ffn_"), self.multiplier)

    def mixture(self, p: Parameters, prefix: str, y_RMD: Tensor, choice: Choice) -> Tensor:
        """The chosen experts and the shared ones."""
        # A R on the weights [R, M, K]: the routed sum is D / K times as large
        out = expert_product(y_RMD, *_weights(p, prefix + "expert_"), choice, self.multiplier)
        if self.shared_multiplier is not None:
            out = out + dense_swiglu(y_RMD, *_weights(p, prefix + "shared_"), self.shared_multiplier)
        return out


def _weights(p: Parameters, prefix: str) -> tuple[Tensor, Tensor, Tensor]:
    return p[prefix + "up"], p[prefix + "gate"], p[prefix + "down"]
