"""Blocks of kinds in use: scaled shared parts, null experts, adapters on frozen experts, routers inside a block."""

from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check.conformance.api import check_block
from mue_check.mutants.routing.experts import SwiGLU
from mue_check.routing.factory import SHAPES


class Plain(nn.Module):
    """A sigmoid router whose weights sum to 1, with ``nulls`` further columns, over stacked SwiGLU experts."""

    claim: ClassVar = {"gate": "sigmoid", "order": "score_first", "router": "router"}
    nulls = 0

    def __init__(self, d: int, f: int, n: int, k: int) -> None:
        super().__init__()
        self.n, self.k = n, k
        self.router = Router(d, n + self.nulls, k)
        self.gate_up = nn.Parameter(torch.randn(n, 2 * f, d) * d**-0.5)
        self.down = nn.Parameter(torch.randn(n, d, f) * f**-0.5)

    def expert(self, e: int, x: Tensor) -> Tensor:
        gate, up = F.linear(x, self.gate_up[e]).chunk(2, -1)
        return F.linear(F.silu(gate) * up, self.down[e])

    def combine(self, x: Tensor) -> Tensor:
        weights, indices = self.router(x)
        return x.new_zeros(len(x), self.n + self.nulls).scatter(1, indices, weights.to(x.dtype))

    def mix(self, x: Tensor) -> Tensor:
        weights = self.combine(x)
        return sum((weights[:, e, None] * self.expert(e, x) for e in range(self.n)), torch.zeros_like(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x.reshape(-1, x.shape[-1])).view_as(x)


class Router(nn.Module):
    def __init__(self, d: int, n: int, k: int) -> None:
        super().__init__()
        self.weight, self.k = nn.Parameter(torch.randn(n, d) * d**-0.5), k

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        best = F.linear(x, self.weight).sigmoid().topk(self.k, -1)
        return best.values / best.values.sum(-1, keepdim=True), best.indices


class Shared(Plain):
    claim: ClassVar = {**Plain.claim, "shared": True}
    factor = 1.0

    def __init__(self, d: int, f: int, n: int, k: int) -> None:
        super().__init__(d, f, n, k)
        self.shared = SwiGLU(d, f)

    def shared_part(self, x: Tensor) -> Tensor:
        part: Tensor = self.shared(x)
        return part

    def mix(self, x: Tensor) -> Tensor:
        return super().mix(x) + self.factor * self.shared_part(x)


class SharedOverRoot2(Shared):
    factor = 2**-0.5


class ClaimedFactor(Shared):
    claim: ClassVar = {**Shared.claim, "shared_scale": 0.25}
    factor = 0.25


class Gated(Shared):
    def __init__(self, d: int, f: int, n: int, k: int) -> None:
        super().__init__(d, f, n, k)
        self.shared_gate = nn.Linear(d, 1, bias=False)

    def shared_part(self, x: Tensor) -> Tensor:
        return self.shared_gate(x).sigmoid() * super().shared_part(x)


class GatedTwice(Gated):
    factor = 2.0


class RawParameters(Plain):
    claim: ClassVar = Shared.claim
    factor = 1.0

    def __init__(self, d: int, f: int, n: int, k: int) -> None:
        super().__init__(d, f, n, k)
        self.up, self.to_width = nn.Parameter(torch.randn(f, d) * d**-0.5), nn.Parameter(torch.randn(d, f) * f**-0.5)

    def mix(self, x: Tensor) -> Tensor:
        return super().mix(x) + self.factor * F.relu(x @ self.up.T) @ self.to_width.T


class HalfOfRawParameters(RawParameters):
    factor = 0.5


class MeanOfTwo(Shared):
    factor = 0.5

    def __init__(self, d: int, f: int, n: int, k: int) -> None:
        super().__init__(d, f, n, k)
        self.shared = nn.ModuleList(SwiGLU(d, f) for _ in range(2))

    def shared_part(self, x: Tensor) -> Tensor:
        return self.shared[0](x) + self.shared[1](x)


class SumOfTwo(MeanOfTwo):
    factor = 1.0


class Identity(Plain):
    claim: ClassVar = {**Plain.claim, "kind": "variable", "null_experts": "identity"}
    nulls = 3
    passes = True

    def mix(self, x: Tensor) -> Tensor:
        weights = self.combine(x)[:, self.n :].sum(-1, keepdim=True)
        return super().mix(x) + (weights * x if self.passes else 0.0)


class IdentityThatAddsNothing(Identity):
    passes = False


class Zero(Identity):
    claim: ClassVar = {**Identity.claim, "null_experts": "zero"}
    passes = False


class ZeroThatPassesOn(Zero):
    passes = True


class Lora(Plain):
    live = True

    def __init__(self, d: int, f: int, n: int, k: int) -> None:
        super().__init__(d, f, n, k)
        self.gate_up.requires_grad_(False)
        self.down.requires_grad_(False)
        self.a, self.b = nn.Parameter(torch.randn(n, 3, f) * f**-0.5), nn.Parameter(torch.zeros(n, d, 3))

    def expert(self, e: int, x: Tensor) -> Tensor:
        gate, up = F.linear(x, self.gate_up[e]).chunk(2, -1)
        more = self.b[e] @ self.a[e]
        return F.linear(F.silu(gate) * up, self.down[e] + (more if self.live else more.detach()))


class DeadLora(Lora):
    live = False


class FrozenLora(Lora):
    def __init__(self, d: int, f: int, n: int, k: int) -> None:
        super().__init__(d, f, n, k)
        self.a.requires_grad_(False)


class Inside(Plain):
    """A linear router: the block itself gates, and weights the experts' input."""

    claim: ClassVar = {"gate": "sigmoid", "weight_sum": "free", "apply_on": "input", "router": "router"}
    on_input = True

    def __init__(self, d: int, f: int, n: int, k: int) -> None:
        super().__init__(d, f, n, k)
        self.router = nn.Linear(d, n, bias=False)  # type: ignore[assignment]

    def mix(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        best = logits.topk(self.k, -1)
        weights = torch.full_like(logits, -torch.inf).scatter(1, best.indices, best.values).sigmoid()
        parts = ((weights[:, e, None], e) for e in range(self.n))
        return sum(
            (self.expert(e, w * x) if self.on_input else w * self.expert(e, x) for w, e in parts), torch.zeros_like(x)
        )


class InsideOnOutput(Inside):
    on_input = False


SHARED, TRAIN = ["shared-unscaled"], ["expert-gradient", "experts-train", "recomposition"]


@pytest.mark.parametrize(
    ("right", "only"),
    [
        *((block, SHARED) for block in (Shared, ClaimedFactor, Gated, RawParameters, SumOfTwo)),
        *((block, [*SHARED, "weight-sum", "recomposition"]) for block in (Identity, Zero)),
        (Lora, TRAIN),
        (Inside, ["weight-sign", "recomposition", "gate", "selection"]),
    ],
)
def test_right_blocks_pass(right: type[Plain], only: list[str]) -> None:
    results = check_block(right, claim=right.claim, only=only, seeds=1, shapes=SHAPES[:2])
    assert not [r for r in results if r.against], [r.explain() for r in results if r.against]


@pytest.mark.parametrize(
    ("wrong", "check", "says"),
    [
        (SharedOverRoot2, "shared-unscaled", "0.7071 times shared; if that is intended, claim shared_scale=0.7071"),
        (GatedTwice, "shared-unscaled", "2 times shared with the gate shared_gate"),
        (HalfOfRawParameters, "shared-unscaled", "0.5 times the function of up, to_width"),
        (MeanOfTwo, "shared-unscaled", "0.5 times shared"),
        (
            IdentityThatAddsNothing,
            "shared-unscaled",
            "null experts add nothing; the claim says that they pass",
        ),
        (ZeroThatPassesOn, "shared-unscaled", "null experts pass their input on; the claim says that they add nothing"),
        (DeadLora, "expert-gradient", "no gradient reaches a in"),
        (FrozenLora, "expert-gradient", "require no gradient"),
        (InsideOnOutput, "recomposition", "the weights multiply the experts' output, not their input"),
    ],
)
def test_wrong_blocks_fail(wrong: type[Plain], check: str, says: str) -> None:
    (found,) = check_block(wrong, claim=wrong.claim, only=[check], seeds=1, shapes=SHAPES[:2])
    assert found.outcome == "failed"
    assert says in found.measured
