"""The pointwise kernels on a CPU, by Triton's interpreter, against the same in float64."""

import pytest
import torch

from mue_check.models import fused_pointwise, pointwise
from tests.interpreter import interpreted, needs_interpreter

__all__ = ["interpreted"]
pytestmark = [needs_interpreter, pytest.mark.usefixtures("interpreted")]
ERROR = {torch.float32: 1e-6, torch.bfloat16: 1e-2}


def leaves(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=generator).to(dtype) for shape in shapes]


def run(function, tensors, used: int):
    """The outputs, and the gradients of a sum over the last ``used`` of them."""
    inputs = [t.detach().requires_grad_() for t in tensors]
    found = function(*inputs)
    outputs = [found] if isinstance(found, torch.Tensor) else list(found)
    generator = torch.Generator().manual_seed(2)
    upstream = [torch.randn(out.shape, generator=generator).to(out.dtype) for out in outputs]
    gradients = torch.autograd.grad(outputs[-used:], inputs, upstream[-used:])
    return [*(out.detach() for out in outputs), *gradients]


def compare(found, expected, dtype: torch.dtype) -> None:
    for i, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.dtype is dtype
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < ERROR[dtype], f"{i}: {error}"


@pytest.mark.parametrize("used", [1, 2], ids=["norm used", "both used"])
@pytest.mark.parametrize("dtype", ERROR, ids=str)
@pytest.mark.parametrize(
    ("runs", "tokens", "branch", "width"), [(2, 150, 150, 32), (3, 15, 5, 20), (1, 1, 1, 130)], ids=str
)
def test_sum_and_norm(runs: int, tokens: int, branch: int, width: int, dtype: torch.dtype, used: int) -> None:
    tensors = leaves(dtype, (runs, tokens, width), (runs, branch, width), (runs, width))
    found = run(lambda x, branch, gain: fused_pointwise.add_norm(x, branch, gain, pointwise.EPS), tensors, used)
    compare(found, run(pointwise.add_norm, [t.double() for t in tensors], used), dtype)


@pytest.mark.parametrize("dtype", ERROR, ids=str)
def test_gradients_of_several_gains_are_summed_together(dtype: torch.dtype) -> None:
    tensors = leaves(dtype, (2, 150, 20), (2, 150, 20), (2, 20), (2, 20))

    def by_kernel(x, branch, *gains):
        first, second = fused_pointwise.for_programs(gains, x)
        return fused_pointwise.add_norm(*fused_pointwise.add_norm(x, branch, first, 1e-6), second, 1e-6)[1]

    def exact(x, branch, *gains):
        return pointwise.add_norm(*pointwise.add_norm(x, branch, gains[0]), gains[1])[1]

    compare(run(by_kernel, tensors, 1), run(exact, [t.double() for t in tensors], 1), dtype)


@pytest.mark.parametrize("dtype", ERROR, ids=str)
@pytest.mark.parametrize("shape", [(2, 5, 8), (1, 1030)])
def test_swiglu(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensors = leaves(dtype, shape, shape)
    compare(run(fused_pointwise.swiglu, tensors, 1), run(pointwise.swiglu, [t.double() for t in tensors], 1), dtype)


@pytest.mark.parametrize("dtype", ERROR, ids=str)
@pytest.mark.parametrize(("runs", "batch", "context", "classes"), [(2, 3, 50, 30), (1, 1, 1, 1), (3, 2, 5, 130)])
def test_cross_entropy(runs: int, batch: int, context: int, classes: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, classes, (runs, batch, context + 1), generator=generator)
    logits = 3 * torch.randn(runs, batch * context, classes, generator=generator)
    logits[0, 0] *= 1e3

    def of(function, x: torch.Tensor):
        x = x.detach().requires_grad_()
        losses = function(x, tokens)
        return losses.detach(), torch.autograd.grad(losses, x, torch.arange(1.0, 1 + runs).to(losses.dtype))[0]

    (losses, gradient) = of(lambda x, t: fused_pointwise.cross_entropy(x, t)[0], logits.to(dtype))
    exact, exact_gradient = of(pointwise.cross_entropy, logits.to(dtype).double())
    assert losses.dtype is torch.float32
    assert gradient.dtype is dtype
    torch.testing.assert_close(losses.double(), exact, rtol=1e-6, atol=1e-6)
    assert (gradient - exact_gradient).norm() <= ERROR[dtype] * exact_gradient.norm()


@pytest.mark.parametrize("dtype", ERROR, ids=str)
def test_a_dense_layer(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """And the product that takes its multiplier, as it is computed on a GPU."""
    tensors = leaves(dtype, (2, 9, 16), (2, 16, 24), (2, 16, 24), (2, 24, 16))
    expected = run(lambda *given: pointwise.dense_swiglu(*given, 0.3), [t.double() for t in tensors], 1)
    monkeypatch.setattr(pointwise, "uses_kernel", lambda name, x, fastest=True: name == "pointwise")
    compare(run(lambda *given: pointwise.dense_swiglu(*given, 0.3), tensors, 1), expected, dtype)
    found = run(lambda x, w: pointwise.apply(pointwise._ScaledProduct, x, w, 0.3), tensors[:2], 1)
    compare(found, run(lambda x, w: torch.bmm(x, w) * 0.3, [t.double() for t in tensors[:2]], 1), dtype)


def test_a_nan_run_does_not_touch_its_neighbours() -> None:
    tensors = leaves(torch.float32, (3, 9, 16), (3, 9, 16), (3, 16))
    clean, hurt = (run(lambda *given: fused_pointwise.add_norm(*given, pointwise.EPS), ts, 2)
                   for ts in (tensors, [t.index_fill(0, torch.tensor(1), torch.nan) for t in tensors]))  # fmt: skip
    for ours, theirs in zip(hurt, clean, strict=True):
        assert torch.equal(ours[[0, 2]], theirs[[0, 2]])
        assert ours[1].isnan().all()
