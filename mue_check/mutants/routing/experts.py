"""Right experts, SwiGLU in the layouts of the field: rows [E, R, d_model], one batch per expert, to the same shape.

E experts, D d_model, F d_expert, R rows. Weights start with a standard deviation of 1/sqrt(fan-in of one expert).
"""

from typing import ClassVar

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
        """w2(silu(w1 x) * w3 x)."""
        y: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return y


class Packed(nn.Module):
    """Experts whose matrices lie in common parameters."""

    layout: ClassVar[ExpertLayout | None] = None

    def __init__(self, d_model: int, d_expert: int, n_experts: int) -> None:
        super().__init__()
        self.d_model, self.d_expert, self.n_experts = d_model, d_expert, n_experts
        self.allocate()
        self.reset_parameters()

    def allocate(self) -> None:
        """Make the parameters, empty."""
        raise NotImplementedError

    def fan_in(self) -> dict[str, int]:
        """How many numbers one output of one expert sums, per parameter."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Normal with 1/sqrt(fan-in)."""
        for name, fan_in in self.fan_in().items():
            nn.init.normal_(self.get_parameter(name), std=fan_in**-0.5)


def parameter(*shape: int) -> nn.Parameter:
    """An empty parameter."""
    return nn.Parameter(torch.empty(*shape))


class FusedExperts(Packed):
    """[E, out, in] with gate and up in one, gate first (transformers 5: Mixtral, Qwen3-MoE, DeepSeek-V3)."""

    layout = ExpertLayout(up="gate_up_proj", down="down_proj", fused="concatenated")

    def allocate(self) -> None:
        """gate_up_proj [E, 2F, D] and down_proj [E, D, F]."""
        self.gate_up_proj = parameter(self.n_experts, 2 * self.d_expert, self.d_model)
        self.down_proj = parameter(self.n_experts, self.d_model, self.d_expert)

    def fan_in(self) -> dict[str, int]:
        """The last axis of each."""
        return {"gate_up_proj": self.d_model, "down_proj": self.d_expert}

    def forward(self, x: Tensor) -> Tensor:
        """Rows [E, R, D] to [E, R, D]."""
        gate, up = (x @ self.gate_up_proj.transpose(1, 2)).chunk(2, dim=-1)
        return (F.silu(gate) * up) @ self.down_proj.transpose(1, 2)


class TransposedExperts(Packed):
    """[E, in, out] with gate and up in one, gate first (Llama 4)."""

    layout = ExpertLayout(up="gate_up_proj", down="down_proj", axes="in_out", fused="concatenated")

    def allocate(self) -> None:
        """gate_up_proj [E, D, 2F] and down_proj [E, F, D]."""
        self.gate_up_proj = parameter(self.n_experts, self.d_model, 2 * self.d_expert)
        self.down_proj = parameter(self.n_experts, self.d_expert, self.d_model)

    def fan_in(self) -> dict[str, int]:
        """The middle axis of each."""
        return {"gate_up_proj": self.d_model, "down_proj": self.d_expert}

    def halves(self, both: Tensor) -> tuple[Tensor, Tensor]:
        """Gate and up."""
        gate, up = both.chunk(2, dim=-1)
        return gate, up

    def forward(self, x: Tensor) -> Tensor:
        """Rows [E, R, D] to [E, R, D]."""
        gate, up = self.halves(x @ self.gate_up_proj)
        return (F.silu(gate) * up) @ self.down_proj


class InterleavedExperts(TransposedExperts):
    """The same with gate and up in turns (gpt-oss, here without its biases and clamp)."""

    layout = ExpertLayout(up="gate_up_proj", down="down_proj", axes="in_out", fused="interleaved")

    def halves(self, both: Tensor) -> tuple[Tensor, Tensor]:
        """Every other column."""
        return both[..., ::2], both[..., 1::2]


class SeparateExperts(Packed):
    """w1 (gate), w2 (down) and w3 (up), each [E, out, in] (torchtitan)."""

    layout = ExpertLayout(up="w3", gate="w1", down="w2")

    def allocate(self) -> None:
        """w1 and w3 [E, F, D], w2 [E, D, F]."""
        self.w1 = parameter(self.n_experts, self.d_expert, self.d_model)
        self.w2 = parameter(self.n_experts, self.d_model, self.d_expert)
        self.w3 = parameter(self.n_experts, self.d_expert, self.d_model)

    def fan_in(self) -> dict[str, int]:
        """The last axis of each."""
        return {"w1": self.d_model, "w2": self.d_expert, "w3": self.d_model}

    def forward(self, x: Tensor) -> Tensor:
        """Rows [E, R, D] to [E, R, D]."""
        h = F.silu(torch.bmm(x, self.w1.transpose(1, 2))) * torch.bmm(x, self.w3.transpose(1, 2))
        return torch.bmm(h, self.w2.transpose(1, 2))


class FlatExperts(Packed):
    """All experts' rows under each other, [E*F, D]: w1 (gate) and v1 (up) lie out_in, w2 (down) in_out (megablocks).

    The axes differ, so ExpertLayout cannot name this layout: the claim leaves it to be found by probing.
    """

    def allocate(self) -> None:
        """Three of [E*F, D]."""
        self.w1, self.v1, self.w2 = (parameter(self.n_experts * self.d_expert, self.d_model) for _ in range(3))

    def fan_in(self) -> dict[str, int]:
        """One expert's own, not that of the flat matrix."""
        return {"w1": self.d_model, "v1": self.d_model, "w2": self.d_expert}

    def forward(self, x: Tensor) -> Tensor:
        """Rows [E, R, D] to [E, R, D]."""
        w1, v1, w2 = (w.view(self.n_experts, self.d_expert, self.d_model) for w in (self.w1, self.v1, self.w2))
        return (F.silu(x @ w1.mT) * (x @ v1.mT)) @ w2
