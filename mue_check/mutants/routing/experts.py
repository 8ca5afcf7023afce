"""Experts, right and broken: SwiGLU in the usual layouts, of rows [E, R, D], one batch per expert.

E experts, D d_model, F d_expert, R rows. Weights start with a standard deviation of 1/sqrt(fan-in of one expert).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check.routing.claim import ExpertLayout


class SwiGLU(nn.Module):
    """One expert of three linear layers, with torch's own init: uniform, so of 1/sqrt(3) the standard deviation."""

    def __init__(self, d_model: int, d_expert: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(d_model, d_expert, bias=False)
        self.w2 = nn.Linear(d_expert, d_model, bias=False)
        self.w3 = nn.Linear(d_model, d_expert, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return y


Sizes = Mapping[str, tuple[tuple[int, ...], int]]
"""By parameter, its shape and how many numbers one output of one expert sums."""


class Packed(nn.Module):
    """Experts whose matrices are slices of common parameters."""

    layout: ClassVar[ExpertLayout | None] = None

    def __init__(self, d_model: int, d_expert: int, n_experts: int) -> None:
        super().__init__()
        self.d_model, self.d_expert, self.n_experts = d_model, d_expert, n_experts
        for name, (shape, _) in self.sizes(n_experts, d_expert, d_model).items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        self.reset_parameters()

    def sizes(self, e: int, f: int, d: int) -> Sizes:
        """The parameters for E, F and D."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Normal with 1/sqrt(fan-in)."""
        for name, (_, fan_in) in self.sizes(self.n_experts, self.d_expert, self.d_model).items():
            nn.init.normal_(self.get_parameter(name), std=fan_in**-0.5)


class FusedExperts(Packed):
    """[E, out, in] with gate and up in one, gate first (transformers 5: Mixtral, Qwen3-MoE, DeepSeek-V3)."""

    layout = ExpertLayout(up="gate_up_proj", down="down_proj", fused="concatenated")
    gate_up_proj: Tensor
    down_proj: Tensor

    def sizes(self, e: int, f: int, d: int) -> Sizes:
        return {"gate_up_proj": ((e, 2 * f, d), d), "down_proj": ((e, d, f), f)}

    def oriented(self, weight: Tensor, inputs: int) -> Tensor:
        """[E, in, out]."""
        return weight.transpose(1, 2)

    def halves(self, both: Tensor) -> tuple[Tensor, Tensor]:
        """Gate and up."""
        gate, up = both.chunk(2, dim=-1)
        return gate, up

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.halves(x @ self.oriented(self.gate_up_proj, self.d_model))
        return (F.silu(gate) * up) @ self.oriented(self.down_proj, self.d_expert)


class ForwardOnlyExperts(FusedExperts):
    """A kernel launched past autograd: right in value, and neither weights nor input get a gradient."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class KaimingExperts(FusedExperts):
    """torch reads [E, out, in] as a convolution, fan-in = out * in: the deviation is too small by sqrt(out)."""

    def reset_parameters(self) -> None:
        for weight in self.parameters():
            nn.init.kaiming_normal_(weight, nonlinearity="linear")


class ShapeGuessingExperts(FusedExperts):
    """Orientation by comparing a size with d_model, for both layouts: wrong where a matrix is square."""

    def oriented(self, weight: Tensor, inputs: int) -> Tensor:
        return weight if weight.shape[1] == inputs else weight.transpose(1, 2)


class TransposedExperts(FusedExperts):
    """[E, in, out] with gate and up in one, gate first (Llama 4)."""

    layout = ExpertLayout(up="gate_up_proj", down="down_proj", axes="in_out", fused="concatenated")

    def sizes(self, e: int, f: int, d: int) -> Sizes:
        return {"gate_up_proj": ((e, d, 2 * f), d), "down_proj": ((e, f, d), f)}

    def oriented(self, weight: Tensor, inputs: int) -> Tensor:
        return weight


class InterleavedExperts(TransposedExperts):
    """The same with gate and up interleaved (gpt-oss, here without its biases and clamp)."""

    layout = ExpertLayout(up="gate_up_proj", down="down_proj", axes="in_out", fused="interleaved")

    def halves(self, both: Tensor) -> tuple[Tensor, Tensor]:
        return both[..., ::2], both[..., 1::2]


class SeparateExperts(Packed):
    """w1 (gate), w2 (down) and w3 (up), each [E, out, in] (torchtitan)."""

    layout = ExpertLayout(up="w3", gate="w1", down="w2")
    w1: Tensor
    w2: Tensor
    w3: Tensor

    def sizes(self, e: int, f: int, d: int) -> Sizes:
        return {"w1": ((e, f, d), d), "w2": ((e, d, f), f), "w3": ((e, f, d), d)}

    def matrices(self) -> tuple[Tensor, ...]:
        """w1, w2 and w3."""
        return self.w1, self.w2, self.w3

    def forward(self, x: Tensor) -> Tensor:
        w1, w2, w3 = (matrix.transpose(1, 2) for matrix in self.matrices())
        return torch.bmm(F.silu(torch.bmm(x, w1)) * torch.bmm(x, w3), w2)


class _ScaleGradient(torch.autograd.Function):
    """The same tensor, its gradient times the parallel degree."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * SummedGradientExperts.PARALLEL_DEGREE


class SummedGradientExperts(SeparateExperts):
    """Gradients are summed over the ranks that send tokens, and averaged over too few; the values are right."""

    PARALLEL_DEGREE: ClassVar[int] = 4  # on one machine there is one rank, and nothing to undo

    def matrices(self) -> tuple[Tensor, ...]:
        return tuple(_ScaleGradient.apply(matrix) for matrix in super().matrices())  # type: ignore[no-untyped-call]


class FlatExperts(Packed):
    """All experts' rows stacked, [E*F, D]: w1 (gate) and v1 (up) are out_in, w2 (down) in_out (megablocks).

    The axes differ, so ExpertLayout cannot name this layout: the checks find it by probing.
    """

    w1: Tensor
    v1: Tensor
    w2: Tensor

    def sizes(self, e: int, f: int, d: int) -> Sizes:
        return {"w1": ((e * f, d), d), "v1": ((e * f, d), d), "w2": ((e * f, d), f)}

    def forward(self, x: Tensor) -> Tensor:
        each = (self.n_experts, self.d_expert, self.d_model)
        w1, v1, w2 = (matrix.view(each) for matrix in (self.w1, self.v1, self.w2))
        return (F.silu(x @ w1.mT) * (x @ v1.mT)) @ w2
