"""Blocks y = block(x) [batch, time, d_model], right and broken: a router, experts, and the moves between them.

Broken: rows 10 to 12, 21, 22 and 25 to 27 of the table of bugs.
"""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mue_check.mutants.mutant import mistake
from mue_check.mutants.routing import capacity, experts, gates, selection
from mue_check.routing.claim import ExpertLayout, RoutingSpec


def block_claim(
    router: type[gates.Gate], layout: ExpertLayout | None, name: str = "router", **changes: Any
) -> RoutingSpec:
    """The router's claim for the block that holds it under ``name``, with the experts' layout and other ``changes``."""
    claim = router.routing_spec
    bias = claim.selection_bias and f"{name}.{claim.selection_bias}"
    where = layout and replace(
        layout, up=f"experts.{layout.up}", down=f"experts.{layout.down}", gate=layout.gate and f"experts.{layout.gate}"
    )
    return replace(claim, router=name, selection_bias=bias, experts=where, **changes)


def spread(weights: Tensor, indices: Tensor, n_experts: int) -> Tensor:
    """Weights [T, a] in the columns of their experts, [T, E]."""
    return weights.new_zeros(len(weights), n_experts).scatter(-1, indices, weights)


class Block(nn.Module):
    """Router and experts under their usual names; ``mix`` combines them for tokens [T, d_model].

    A right block names its ``router`` and ``experts`` and derives its claim from theirs with ``changes``; a broken one
    keeps the claim of the right one.
    """

    routing_spec: ClassVar[RoutingSpec]
    router_class: ClassVar[type[gates.Gate]]
    experts_class: ClassVar[type[experts.Packed]]

    def __init_subclass__(
        cls, router: type[gates.Gate] | None = None, experts: type[experts.Packed] | None = None, **changes: Any
    ) -> None:
        super().__init_subclass__()
        if router and experts:
            cls.router_class, cls.experts_class = router, experts
            cls.routing_spec = block_claim(router, experts.layout, **changes)

    def __init__(self, d_model: int, d_expert: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        self.n_experts = n_experts
        self.router = self.router_class(d_model, n_experts, top_k)
        self.experts = self.experts_class(d_model, d_expert, n_experts)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x.reshape(-1, x.shape[-1])).view(x.shape)

    def mix(self, x: Tensor) -> Tensor:
        """Every expert on every token, weighted: exact, and without a shape that depends on the choice."""
        combine = self.combine(x)
        y = self.experts(x.expand(self.n_experts, *x.shape))
        return torch.einsum("te,etd->td", combine.to(y.dtype), y)

    def combine(self, x: Tensor) -> Tensor:
        """Weights [T, E] of a router that returns (..., weights, indices)."""
        *_, weights, indices = self.router(x)
        return spread(weights, indices, self.n_experts)


class CompleteMueBlock(Block, router=gates.CompleteMueRouter, experts=experts.SeparateExperts):
    """Complete-muE's routing over separate [E, out, in] matrices."""


@mistake(21, "gradient-split", seen="databricks/megablocks PR#20; pytorch/pytorch #160285")
class GradientTimesParallelDegree(CompleteMueBlock):
    """Experts' gradients are too large by the parallel degree, which Adam hides."""

    experts_class = experts.SummedGradientExperts


class MixtralBlock(nn.Module):
    """A list of SwiGLU experts, one after the other on the tokens that chose it (transformers 4)."""

    routing_spec = block_claim(gates.MixtralRouter, None, name="gate")

    def __init__(self, d_model: int, d_expert: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        self.gate = gates.MixtralRouter(d_model, n_experts, top_k)
        self.experts = nn.ModuleList(experts.SwiGLU(d_model, d_expert) for _ in range(n_experts))

    def forward(self, x: Tensor) -> Tensor:
        """An expert without tokens is still called, so that its gradient is 0 and not None."""
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


@mistake(11, "recomposition", seen="edwardcapriolo/deliverance #87")
class OutputsNotWeighted(MixtralBlock):
    """Experts' outputs are added without their weights."""

    def weighted(self, y: Tensor, weights: Tensor) -> Tensor:
        return y


class OlmoeBlock(Block, router=gates.OlmoeRouter, experts=experts.FusedExperts):
    """Probabilities as they are, over fused [E, out, in] matrices."""


@mistake(25, "expert-init", seen="huggingface/transformers PR#42306")
class FanInOfAllDimensions(OlmoeBlock):
    """Fan-in of [E, out, in] taken as out * in: experts start too small by sqrt(out)."""

    experts_class = experts.KaimingExperts


@mistake(26, "recomposition", seen="unslothai/unsloth-zoo #849; huggingface/transformers #47031")
class OrientationByShape(OlmoeBlock):
    """Orientation guessed from shapes: gate and up are transposed where 2f = d, down where f = d."""

    experts_class = experts.ShapeGuessingExperts


class GptOssBlock(Block, router=gates.GptOssRouter, experts=experts.InterleavedExperts):
    """Softmax after the choice, over interleaved [E, in, out] matrices."""


class MegablocksBlock(Block, router=gates.MixtralRouter, experts=experts.FlatExperts):
    """Normalized softmax over flat 2-D matrices."""


class PanguBlock(Block, router=selection.PanguRouter, experts=experts.FusedExperts):
    """One expert of each group."""


class SwitchBlock(Block, router=gates.SwitchRouter, experts=experts.SeparateExperts):
    """One expert per token, dropless."""


@mistake(12, "input-mutation", seen="huggingface/transformers #33969")
class JitterReachesExperts(SwitchBlock):
    """The router's jitter changes the experts' input."""

    router_class = gates.JitterInPlace


class TorchtitanBlock(Block, router=selection.TorchtitanRouter, experts=experts.SeparateExperts):
    """torchtitan's router, whose weights come first, over separate [E, out, in] matrices."""

    def combine(self, x: Tensor) -> Tensor:
        weights, indices, _ = self.router(x)
        return spread(weights, indices, self.n_experts)


class MegatronBlock(Block, router=capacity.MegatronCapacityRouter, experts=experts.SeparateExperts):
    """Dense probabilities with a map, and capacity."""

    def combine(self, x: Tensor) -> Tensor:
        probabilities: Tensor = self.router(x)[0]
        return probabilities


class DeepSpeedBlock(Block, router=capacity.DeepSpeedRouter, experts=experts.SeparateExperts):
    """Einsum moves tokens to slots [E, C] and back (GShard)."""

    def mix(self, x: Tensor) -> Tensor:
        """Each expert on its slots, empty ones included."""
        _, combine, dispatch, _ = self.router(x)
        y = self.experts(torch.einsum("tec,td->ecd", dispatch.to(x.dtype), x))
        return torch.einsum("tec,ecd->td", combine.to(x.dtype), y)


class ExpertChoiceBlock(Block, router=capacity.ExpertChoiceRouter, experts=experts.SeparateExperts):
    """Each expert on the tokens that it takes."""

    def mix(self, x: Tensor) -> Tensor:
        indices, weights = self.router(x)
        y = self.experts(x[indices]) * weights.unsqueeze(-1).to(x.dtype)
        return torch.zeros_like(x).index_add(0, indices.flatten(), y.flatten(0, 1))


@mistake(27, "causality", seen="piotrpiekos/MoSA #3; karpathy/nanochat #844")
class ExpertChoiceCalledCausal(ExpertChoiceBlock):
    """Expert choice in a causal model: a token's output depends on later ones."""

    routing_spec = replace(ExpertChoiceBlock.routing_spec, causal=True)


class SharedBlock(Block):
    """Routed experts and one that sees every token."""

    route_scale: ClassVar[float] = 1.0

    def __init__(self, d_model: int, d_expert: int, n_experts: int, top_k: int) -> None:
        super().__init__(d_model, d_expert, n_experts, top_k)
        self.shared_experts = experts.SwiGLU(d_model, d_expert)

    def mix(self, x: Tensor) -> Tensor:
        """The routed sum, scaled, plus the shared expert."""
        shared: Tensor = self.shared_experts(x)
        return super().mix(x) * self.route_scale + shared


class DeepSeekV3Block(SharedBlock, router=selection.DeepSeekV3Router, experts=experts.FusedExperts, shared=True):
    """The router scales by 2.5, the block does not."""


class MoonlightBlock(DeepSeekV3Block, router=selection.MoonlightRouter, experts=experts.FusedExperts, shared=True):
    """The same with one group and a scale of 2.446."""


@mistake(10, "recomposition", "routed_scale_twice", seen="sgl-project/sglang #35152; vllm-project/vllm PR#45037")
class ScaleTwice(MoonlightBlock):
    """Router and block both apply the routed scale."""

    route_scale = 2.446


@mistake(22, "experts-train", seen="KellerJordan/Muon #65")
class ForwardOnlyKernel(MoonlightBlock):
    """The experts' kernel has no backward pass: the loss falls, and the routed experts are never trained."""

    experts_class = experts.ForwardOnlyExperts


class SglangBlock(
    SharedBlock, router=selection.UnscaledRouter, experts=experts.FusedExperts, shared=True, route_scale=2.5
):
    """The router's weights sum to 1, the block scales the routed sum by 2.5 (sglang)."""

    route_scale = 2.5


@mistake(10, "recomposition", "routed_scale_forgotten", seen="sgl-project/sglang PR#8511")
class ScaleForgotten(SglangBlock):
    """The block's routed scale is not applied."""

    route_scale = 1.0


class Llama4Block(SharedBlock, router=gates.Llama4Router, experts=experts.TransposedExperts, shared=True):
    """The score multiplies the expert's input; every other expert sees zeros (Llama 4)."""

    def mix(self, x: Tensor) -> Tensor:
        """All experts on weighted inputs, summed, plus the shared expert."""
        scores, _ = self.router(x)
        shared: Tensor = self.shared_experts(x)
        routed: Tensor = self.experts(x * scores.transpose(0, 1).unsqueeze(-1)).sum(0)
        return routed + shared
