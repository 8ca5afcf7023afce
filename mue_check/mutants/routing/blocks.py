"""Right blocks, y = block(x) [batch, time, d_model]: a router, experts, and several ways to carry tokens to and fro."""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mue_check.mutants.routing import capacity, gates, selection
from mue_check.mutants.routing.experts import (
    FlatExperts,
    FusedExperts,
    InterleavedExperts,
    Packed,
    SeparateExperts,
    SwiGLU,
    TransposedExperts,
)
from mue_check.routing.claim import ExpertLayout, RoutingSpec


def block_claim(
    router: type[gates.Gate], layout: ExpertLayout | None, name: str = "router", **changes: Any
) -> RoutingSpec:
    """The router's claim for the block that holds it under ``name``, with the experts' layout and other ``changes``."""
    claim = router.routing_spec
    bias = claim.selection_bias and f"{name}.{claim.selection_bias}"
    where = layout and replace(
        layout,
        up=f"experts.{layout.up}",
        down=f"experts.{layout.down}",
        gate=layout.gate and f"experts.{layout.gate}",
    )
    return replace(claim, router=name, selection_bias=bias, experts=where, **changes)


def spread(weights: Tensor, indices: Tensor, n_experts: int) -> Tensor:
    """Weights [T, a] at their experts' places, [T, E]."""
    return weights.new_zeros(len(weights), n_experts).scatter(-1, indices, weights)


class Block(nn.Module):
    """Router and experts under their usual names; ``mix`` brings them together for tokens [T, d_model]."""

    routing_spec: ClassVar[RoutingSpec]
    router_class: ClassVar[type[gates.Gate]]
    experts_class: ClassVar[type[Packed]]

    def __init__(self, d_model: int, d_expert: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        self.n_experts = n_experts
        self.router = self.router_class(d_model, n_experts, top_k)
        self.experts = self.experts_class(d_model, d_expert, n_experts)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, d_model], routed token by token."""
        return self.mix(x.reshape(-1, x.shape[-1])).view(x.shape)

    def mix(self, x: Tensor) -> Tensor:
        """Every expert on every token, weighted: exact, and without a shape that depends on the choice."""
        combine = self.combine(x)
        return self.weighted(combine, self.experts(x.expand(self.n_experts, *x.shape)))

    def weighted(self, combine: Tensor, y: Tensor) -> Tensor:
        """sum_e combine[t, e] y[e, t]."""
        return torch.einsum("te,etd->td", combine.to(y.dtype), y)

    def combine(self, x: Tensor) -> Tensor:
        """Weights [T, E] of a router that returns (..., weights, indices)."""
        *_, weights, indices = self.router(x)
        return spread(weights, indices, self.n_experts)


class CompleteMueBlock(Block):
    """Complete-muE's routing over separate [E, out, in] matrices."""

    router_class, experts_class = gates.CompleteMueRouter, SeparateExperts
    routing_spec = block_claim(router_class, experts_class.layout)


class MixtralBlock(nn.Module):
    """A list of SwiGLU experts, one after the other on the tokens that chose it (transformers 4)."""

    routing_spec = block_claim(gates.MixtralRouter, None, name="gate")

    def __init__(self, d_model: int, d_expert: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        self.gate = gates.MixtralRouter(d_model, n_experts, top_k)
        self.experts = nn.ModuleList(SwiGLU(d_model, d_expert) for _ in range(n_experts))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, d_model]; an expert without tokens still takes part, so that its gradient is 0 and not None."""
        tokens = x.reshape(-1, x.shape[-1])
        _, weights, indices = self.gate(tokens)
        y = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            token, slot = torch.where(indices == number)
            y.index_add_(0, token, self.weighted(expert(tokens[token]), weights[token, slot, None]))
        return y.view(x.shape)

    def weighted(self, y: Tensor, weights: Tensor) -> Tensor:
        """One expert's outputs [R, d_model] times their weights [R, 1]."""
        return y * weights


class OlmoeBlock(Block):
    """Probabilities as they are, over fused [E, out, in] matrices."""

    router_class, experts_class = gates.OlmoeRouter, FusedExperts
    routing_spec = block_claim(router_class, experts_class.layout)


class GptOssBlock(Block):
    """Softmax after the choice, over interleaved [E, in, out] matrices."""

    router_class, experts_class = gates.GptOssRouter, InterleavedExperts
    routing_spec = block_claim(router_class, experts_class.layout)


class MegablocksBlock(Block):
    """Normalized softmax over flat 2-D matrices."""

    router_class, experts_class = gates.MixtralRouter, FlatExperts
    routing_spec = block_claim(router_class, experts_class.layout)


class PanguBlock(Block):
    """One expert of each group."""

    router_class, experts_class = selection.PanguRouter, FusedExperts
    routing_spec = block_claim(router_class, experts_class.layout)


class SwitchBlock(Block):
    """One expert per token, dropless."""

    router_class, experts_class = gates.SwitchRouter, SeparateExperts
    routing_spec = block_claim(router_class, experts_class.layout)


class TorchtitanBlock(Block):
    """torchtitan's router, whose weights come first, over separate [E, out, in] matrices."""

    router_class, experts_class = selection.TorchtitanRouter, SeparateExperts
    routing_spec = block_claim(router_class, experts_class.layout)

    def combine(self, x: Tensor) -> Tensor:
        """Weights [T, E]."""
        weights, indices, _ = self.router(x)
        return spread(weights, indices, self.n_experts)


class MegatronBlock(Block):
    """Dense probabilities with a map, and capacity."""

    router_class, experts_class = capacity.MegatronCapacityRouter, SeparateExperts
    routing_spec = block_claim(router_class, experts_class.layout)

    def combine(self, x: Tensor) -> Tensor:
        """Weights [T, E], as the router has them."""
        probabilities: Tensor = self.router(x)[0]
        return probabilities


class DeepSpeedBlock(Block):
    """Tokens are sent to slots [E, C] and brought back by einsum (GShard)."""

    router_class, experts_class = capacity.DeepSpeedRouter, SeparateExperts
    routing_spec = block_claim(router_class, experts_class.layout)

    def mix(self, x: Tensor) -> Tensor:
        """Each expert on its slots, empty ones included."""
        _, combine, dispatch, _ = self.router(x)
        y = self.experts(torch.einsum("tec,td->ecd", dispatch.to(x.dtype), x))
        return torch.einsum("tec,ecd->td", combine.to(x.dtype), y)


class ExpertChoiceBlock(Block):
    """Each expert on the tokens that it takes."""

    router_class, experts_class = capacity.ExpertChoiceRouter, SeparateExperts
    routing_spec = block_claim(router_class, experts_class.layout)

    def mix(self, x: Tensor) -> Tensor:
        """Gathered, computed, weighted and added back."""
        indices, weights = self.router(x)
        y = self.experts(x[indices]) * weights.unsqueeze(-1).to(x.dtype)
        return torch.zeros_like(x).index_add(0, indices.flatten(), y.flatten(0, 1))


class SharedBlock(Block):
    """Routed experts and one that sees every token."""

    route_scale: ClassVar[float] = 1.0

    def __init__(self, d_model: int, d_expert: int, n_experts: int, top_k: int) -> None:
        super().__init__(d_model, d_expert, n_experts, top_k)
        self.shared_experts = SwiGLU(d_model, d_expert)

    def mix(self, x: Tensor) -> Tensor:
        """The routed sum, scaled, plus the shared expert."""
        shared: Tensor = self.shared_experts(x)
        return super().mix(x) * self.route_scale + shared


class DeepSeekV3Block(SharedBlock):
    """The router scales by 2.5, the block does not."""

    router_class, experts_class = selection.DeepSeekV3Router, FusedExperts
    routing_spec = block_claim(router_class, experts_class.layout, shared=True)


class MoonlightBlock(DeepSeekV3Block):
    """The same with one group and a scale of 2.446."""

    router_class, experts_class = selection.MoonlightRouter, FusedExperts
    routing_spec = block_claim(router_class, experts_class.layout, shared=True)


class SglangBlock(SharedBlock):
    """The router's weights sum to 1, the block scales the routed sum by 2.5 (sglang)."""

    router_class, experts_class = selection.UnscaledRouter, FusedExperts
    route_scale = 2.5
    routing_spec = block_claim(router_class, experts_class.layout, shared=True, route_scale=route_scale)


class Llama4Block(SharedBlock):
    """The score multiplies the expert's input; every other expert sees zeros (Llama 4)."""

    router_class, experts_class = gates.Llama4Router, TransposedExperts
    routing_spec = block_claim(router_class, experts_class.layout, shared=True)

    def mix(self, x: Tensor) -> Tensor:
        """All experts on weighted inputs, summed, plus the shared expert."""
        scores, _ = self.router(x)
        shared: Tensor = self.shared_experts(x)
        routed: Tensor = self.experts(x * scores.transpose(0, 1).unsqueeze(-1)).sum(0)
        return routed + shared
