"""The kernel that chooses experts on a CPU, by Triton's interpreter, against torch's operations."""

import pytest
import torch

from mue_check.models import fused_routing
from mue_check.models.fused_routing import choose_by_sigmoid
from mue_check.routing.choice import Mixture
from mue_check.routing.variants import RouterInput
from tests.interpreter import interpreted, needs_interpreter

__all__ = ["interpreted"]
pytestmark = [needs_interpreter, pytest.mark.usefixtures("interpreted")]


@pytest.fixture(autouse=True)
def _used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_routing, "uses_kernel", lambda name, x: True)


@pytest.mark.parametrize("normal", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(
    ("runs", "tokens", "total", "active", "groups"),
    [(2, 21, 16, 4, 1), (1, 5, 10, 10, 1), (3, 7, 12, 6, 3), (1, 1, 1, 1, 1), (2, 3, 300, 3, 1)],
)
def test_the_choice_and_its_gradient(
    runs: int, tokens: int, total: int, active: int, groups: int, biased: bool, normal: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(runs, tokens, total, generator=generator, requires_grad=True)
    bias = torch.randn(runs, total, generator=generator) if biased else None
    experts = Mixture(router="sigmoid_norm", total=total, activated=active, groups=groups)
    found = choose_by_sigmoid(logits, experts, bias, normal)
    expected = RouterInput(logits_RME=logits, bias_RE=bias).chosen_by_sigmoid(experts, normal=normal)
    assert found is not None
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.weights, expected.weights)
    upstream = torch.randn(found.weights.shape, generator=generator)
    gradients = [torch.autograd.grad(choice.weights, logits, upstream)[0] for choice in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_a_run_of_nan_still_chooses_different_experts_that_exist() -> None:
    logits = torch.randn(3, 4, 6)
    logits[1] = torch.nan
    choice = choose_by_sigmoid(logits, Mixture(router="sigmoid_norm", total=6, activated=3), None, False)
    assert choice is not None
    assert choice.indices[1].tolist() == [[0, 1, 2]] * 4
    assert choice.weights[1].isnan().all()
    assert choice.weights[[0, 2]].isfinite().all()
