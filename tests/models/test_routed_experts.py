"""The expert kernels on a CPU, by Triton's interpreter."""

from dataclasses import replace

import pytest
import torch

from bench import expert_product
from mue_check.models.experts import all_experts
from mue_check.models.routed_experts import routed_experts
from mue_check.routing.choice import TokenChoice
from mue_check.routing.variants import route
from mue_check.spec import Experts
from tests.interpreter import interpreted, needs_interpreter

pytestmark = [needs_interpreter, pytest.mark.usefixtures("interpreted")]

__all__ = ["interpreted"]

SHAPES = {  # R, M, D, E, F, K
    "even": (1, 32, 32, 4, 16, 2),
    "odd everything": (2, 19, 24, 5, 12, 3),
    "all experts active": (1, 20, 16, 3, 8, 3),
    "one expert, one token": (2, 1, 16, 1, 5, 1),
    "more experts than assignments": (1, 3, 20, 40, 8, 1),
    "several blocks of every axis": (1, 70, 130, 2, 70, 1),
    "one wide expert for each token": (2, 48, 32, 4, 128, 1),
}


def case(runs, tokens, width, total, hidden, active, *, dtype=torch.float32, skew=0.0):
    generator = torch.Generator().manual_seed(1)

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    scores = torch.randn(runs, tokens, total, generator=generator) + skew * torch.arange(total)
    tensors = [leaf(runs, tokens, width), *(leaf(runs, width, total, hidden) for _ in range(2))]
    return [*tensors, leaf(runs, total, hidden, width), leaf(runs, tokens, active)], scores.topk(active, dim=-1).indices


def run(product, tensors, indices):
    leaves = [t.detach().requires_grad_() for t in tensors]
    out = product(*leaves[:4], TokenChoice(leaves[4], indices))
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
    out.backward(upstream)
    return [out.detach(), *(t.grad for t in leaves)]


NAMES = ("out", "x", "up", "gate", "down", "weights")


CASES = [(name, 0.0) for name in SHAPES] + [("odd everything", 50.0)]


@pytest.mark.parametrize(("name", "skew"), CASES, ids=[f"{n}{', overfull' * bool(skew)}" for n, skew in CASES])
def test_forward_and_backward_are_those_of_float64(name: str, skew: float) -> None:
    tensors, indices = case(*SHAPES[name], skew=skew)
    ours = run(routed_experts, tensors, indices)
    exact = run(all_experts, [t.double() for t in tensors], indices)
    for name, found, expected in zip(NAMES, ours, exact, strict=True):
        error = (found.double() - expected).norm() / expected.norm()
        assert error < 1e-6, f"{name}: {error}"


@pytest.mark.parametrize("router", ["sigmoid_norm", "sigmoid_mean"])
def test_gradients_reach_the_logits_if_each_token_has_one_expert(router: str) -> None:
    """A normalized weight is 1 whatever the logits: their exact gradient is 0, and what is left is rounding."""
    experts = replace(Experts(total=4, activated=1, hidden=80), router=router)
    tensors, _ = case(1, 24, 32, 4, 80, 1)
    logits = torch.randn(1, 24, 4, generator=torch.Generator().manual_seed(3))

    def gradients(product, dtype: torch.dtype) -> list[torch.Tensor]:
        leaves = [t.detach().to(dtype) for t in tensors[:4]]
        of_dtype = logits.to(dtype).requires_grad_()
        routing = route(of_dtype, experts)
        return list(torch.autograd.grad(product(*leaves, routing).square().sum(), [routing.weights, of_dtype]))

    of_weights, of_logits = gradients(routed_experts, torch.float32)
    exact_weights, exact_logits = gradients(all_experts, torch.float64)
    assert (of_weights - exact_weights).norm() < 1e-6 * exact_weights.norm()
    assert (of_logits - exact_logits).norm() < 1e-6 * exact_weights.norm()
    assert bool(exact_logits.norm() < 1e-12 * exact_weights.norm()) is (router == "sigmoid_norm")


@pytest.mark.parametrize("active", [1, 2])
def test_the_script_that_compares_products_finds_rounding_alone(monkeypatch: pytest.MonkeyPatch, active: int) -> None:
    monkeypatch.setattr(expert_product, "REPEATS", 1)
    products = {"all": all_experts, "interpreted": routed_experts}
    found = expert_product.measure((1, 24, 32, 4, active, 80), "fp32", torch.device("cpu"), products)
    assert found["all_error"] == 0 < found["interpreted_error"] < 1e-6


@pytest.mark.parametrize("name", ["all experts active", "several blocks of every axis"])
def test_bfloat16_is_as_close_as_its_rounding(name: str) -> None:
    tensors, indices = case(*SHAPES[name], dtype=torch.bfloat16)
    ours = run(routed_experts, tensors, indices)
    exact = run(all_experts, [t.double() for t in tensors], indices)
    for name, found, expected in zip(NAMES, ours, exact, strict=True):
        assert found.dtype is torch.bfloat16
        error = (found.double() - expected).norm() / expected.norm()
        assert error < 1e-2, f"{name}: {error}"


@pytest.mark.parametrize("name", ["all experts active", "several blocks of every axis"])
def test_the_tilings_of_tf32_compute_the_same(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The interpreter does not round to tf32."""
    tensors, indices = case(*SHAPES[name])
    expected = run(routed_experts, tensors, indices)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    for found, other in zip(run(routed_experts, tensors, indices), expected, strict=True):
        assert (found - other).norm() < 1e-6 * other.norm()


def test_a_nan_run_does_not_touch_its_neighbours() -> None:
    tensors, indices = case(3, 10, 16, 2, 8, 1)
    clean = run(routed_experts, tensors, indices)
    for tensor in tensors:
        tensor.data[1] = torch.nan
    hurt = run(routed_experts, tensors, indices)
    for ours, theirs in zip(hurt, clean, strict=True):
        assert torch.equal(ours[[0, 2]], theirs[[0, 2]])
        assert ours[1].isnan().any()


EVEN, UNEVEN, ALL_TO_ONE = 0.0, 1.0, 50.0
TO_SORT = [(3, 70, 5, 3), (2, 1, 9, 1), (1, 300, 130, 2)]


@pytest.mark.parametrize(
    ("runs", "tokens", "total", "active", "skew"),
    [(65, 2, 128, 1, UNEVEN), *((*shape, skew) for shape in TO_SORT for skew in (EVEN, UNEVEN, ALL_TO_ONE))],
)
def test_assignments_are_sorted_into_tiles(runs: int, tokens: int, total: int, active: int, skew: float) -> None:
    from mue_check.models.kernels.sort import sort_by_expert

    indices = (torch.randn(runs, tokens, total) + skew * torch.arange(total)).topk(active, dim=-1).indices
    found = sort_by_expert(indices, total, 16)
    group = (indices + torch.arange(runs).view(-1, 1, 1) * total).flatten()
    assert torch.equal(found.order_S.long(), torch.argsort(group, stable=True))
    assert torch.equal(found.end_GC[:, -1].long(), torch.bincount(group, minlength=runs * total).cumsum(0))
    expert, first, last = found.tiles_3T.view(3, runs, -1)
    covered = []
    for run_ in range(runs):
        for e, begin, end in zip(expert[run_].tolist(), first[run_].tolist(), last[run_].tolist(), strict=True):
            rows = range(begin, min(begin + 16, end))
            assert all(group[found.order_S[row]] == run_ * total + e for row in rows)
            covered += rows
    assert covered == list(range(len(group)))
