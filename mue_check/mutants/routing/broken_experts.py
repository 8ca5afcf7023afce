"""Mistakes with the experts' outputs, gradients and weights: rows 10, 11, 21, 22, 25 and 26 of the table."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check.mutants.routing.blocks import (
    CompleteMueBlock,
    MixtralBlock,
    MoonlightBlock,
    OlmoeBlock,
    SglangBlock,
)
from mue_check.mutants.routing.bug import Bug
from mue_check.mutants.routing.experts import FusedExperts, SeparateExperts

PARALLEL_DEGREE = 4
"""Ranks over which the experts would be spread; on one machine there is one, and nothing to undo."""


class ScaleForgotten(SglangBlock):
    """A path of its own for the experts' sum, which leaves out the scale that belongs to the block."""

    route_scale = 1.0


class ScaleTwice(MoonlightBlock):
    """Router and block both scale."""

    route_scale = 2.446


class OutputsNotWeighted(MixtralBlock):
    """The weights choose and are forgotten: the experts' outputs are added up as they are."""

    def weighted(self, y: Tensor, weights: Tensor) -> Tensor:
        """The output alone."""
        return y


class _ScaleGradient(torch.autograd.Function):
    """The same tensor, its gradient times the parallel degree."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * PARALLEL_DEGREE


def _scaled(weight: Tensor) -> Tensor:
    scaled: Tensor = _ScaleGradient.apply(weight)  # type: ignore[no-untyped-call]
    return scaled


class SummedGradientExperts(SeparateExperts):
    """Gradients summed over the ranks that send tokens, and averaged over too few."""

    def forward(self, x: Tensor) -> Tensor:
        """Right in value."""
        w1, w2, w3 = (_scaled(w) for w in (self.w1, self.w2, self.w3))
        return (F.silu(x @ w1.mT) * (x @ w3.mT)) @ w2.mT


class GradientTimesParallelDegree(CompleteMueBlock):
    """Experts that learn as if they had four times the loss; Adam hides it."""

    experts_class = SummedGradientExperts


class ForwardOnlyExperts(FusedExperts):
    """A kernel launched past autograd."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Right in value; neither the weights nor the input get a gradient."""
        return super().forward(x)


class ForwardOnlyKernel(MoonlightBlock):
    """The shared expert and the router learn, so that the loss falls; the routed experts stay as they were drawn."""

    experts_class = ForwardOnlyExperts


class KaimingExperts(FusedExperts):
    """torch reads [E, out, in] as a convolution: fan-in = out * in."""

    def reset_parameters(self) -> None:
        """A standard deviation that is too small by sqrt(out)."""
        for weight in self.parameters():
            nn.init.kaiming_normal_(weight, nonlinearity="linear")


class FanInOfAllDimensions(OlmoeBlock):
    """Experts that hardly say anything at the start."""

    experts_class = KaimingExperts


class ShapeGuessingExperts(FusedExperts):
    """Orientation by comparing a size with d_model, for checkpoints of either layout."""

    def oriented(self, weight: Tensor, inputs: int) -> Tensor:
        """[E, in, out]; where the matrix is square it is taken for that already."""
        return weight if weight.shape[1] == inputs else weight.transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Right unless 2F = D, or F = D."""
        gate, up = (x @ self.oriented(self.gate_up_proj, self.d_model)).chunk(2, dim=-1)
        return (F.silu(gate) * up) @ self.oriented(self.down_proj, self.d_expert)


class OrientationByShape(OlmoeBlock):
    """Experts that are transposed where their matrices are square."""

    experts_class = ShapeGuessingExperts


EXPERTS = (
    Bug(
        row=10,
        name="routed_scale_forgotten",
        summary="the block's routed scale is not applied",
        seen="sgl-project/sglang PR#8511",
        candidate="block",
        caught_by="recomposition",
        factory=ScaleForgotten,
        claim=SglangBlock.routing_spec,
        twin=SglangBlock,
    ),
    Bug(
        row=10,
        name="routed_scale_twice",
        summary="router and block both apply the routed scale",
        seen="sgl-project/sglang #35152; vllm-project/vllm PR#45037",
        candidate="block",
        caught_by="recomposition",
        factory=ScaleTwice,
        claim=MoonlightBlock.routing_spec,
        twin=MoonlightBlock,
    ),
    Bug(
        row=11,
        name="outputs_not_weighted",
        summary="experts' outputs are added without their weights",
        seen="edwardcapriolo/deliverance #87",
        candidate="block",
        caught_by="recomposition",
        factory=OutputsNotWeighted,
        claim=MixtralBlock.routing_spec,
        twin=MixtralBlock,
    ),
    Bug(
        row=21,
        name="gradient_times_parallel_degree",
        summary="experts' gradients are too large by the parallel degree, which Adam hides",
        seen="databricks/megablocks PR#20; pytorch/pytorch #160285",
        candidate="block",
        caught_by="gradient-split",
        factory=GradientTimesParallelDegree,
        claim=CompleteMueBlock.routing_spec,
        twin=CompleteMueBlock,
    ),
    Bug(
        row=22,
        name="forward_only_kernel",
        summary="the experts' kernel has no backward pass: they are never trained",
        seen="KellerJordan/Muon #65",
        candidate="block",
        caught_by="experts-train",
        factory=ForwardOnlyKernel,
        claim=MoonlightBlock.routing_spec,
        twin=MoonlightBlock,
    ),
    Bug(
        row=25,
        name="fan_in_of_all_dimensions",
        summary="fan-in of [E, out, in] taken as out * in: experts start too small by sqrt(out)",
        seen="huggingface/transformers PR#42306",
        candidate="block",
        caught_by="expert-init",
        factory=FanInOfAllDimensions,
        claim=OlmoeBlock.routing_spec,
        twin=OlmoeBlock,
    ),
    Bug(
        row=26,
        name="orientation_by_shape",
        summary="orientation guessed from shapes: gate and up are transposed where 2f = d, down where f = d",
        seen="unslothai/unsloth-zoo #849; huggingface/transformers #47031",
        candidate="block",
        caught_by="recomposition",
        factory=OrientationByShape,
        claim=OlmoeBlock.routing_spec,
        twin=OlmoeBlock,
    ),
)
