"""Blocks of diffusion transformers whose gate starts at zero: they pass where they are right, and fail where not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mue_check.conformance.api import check_candidate
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.factory import SHAPES
from tests.conformance.odd_blocks import Plain

CHECKS = ["recomposition", "dense-equivalence", "expert-gradient", "experts-train", "gradient-split"]


class Scaled(Plain):
    """One gate for each channel."""

    def __init__(self, d, f, n, k):
        super().__init__(d, f, n, k)
        self.scale = nn.Parameter(torch.zeros(d))

    def forward(self, x):
        return self.scale * super().forward(x)


class Modulated(Plain):
    """Shift, scale and gate of a fixed condition, on a residual stream."""

    factor = 1.0

    def __init__(self, d, f, n, k):
        super().__init__(d, f, n, k)
        self.modulation = nn.Linear(d, 3 * d)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.register_buffer("condition", torch.linspace(-1, 1, d))

    def forward(self, x):
        shift, scale, gate = self.modulation(F.silu(self.condition)).chunk(3, -1)
        return x + self.factor * gate * super().forward(F.rms_norm(x, x.shape[-1:]) * (1 + scale) + shift)


class Halved(Modulated):
    """The mixture counts half."""

    factor = 0.5


class Silent(Plain):
    """No gate: its experts start at zero, and so does a bias that opens nothing."""

    def __init__(self, d, f, n, k):
        super().__init__(d, f, n, k)
        self.bias = nn.Parameter(torch.zeros(d))
        nn.init.zeros_(self.down)

    def forward(self, x):
        return super().forward(x) + self.bias


def outcomes(block: type[Plain]) -> dict[str, tuple[str, str]]:
    results = check_candidate("block", block, claim=RoutingSpec(), only=CHECKS, seeds=1, shapes=SHAPES[:2])
    return {r.check: (r.outcome, r.measured) for r in results}


@pytest.mark.parametrize("block", [Scaled, Modulated])
def test_a_right_block_passes_without_its_gate(block: type[Plain]) -> None:
    found = outcomes(block)
    assert {status for status, _ in found.values()} == {"passed"}, found
    assert "at 1 instead of 0" in found["recomposition"][1]


def test_a_wrong_one_is_seen_behind_its_gate() -> None:
    assert outcomes(Halved)["recomposition"][0] == "failed"


def test_what_is_no_gate_stays_as_it_is() -> None:
    status, measured = outcomes(Silent)["recomposition"]
    assert status == "passed"
    assert "instead of 0" not in measured
