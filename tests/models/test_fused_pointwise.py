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
@pytest.mark.parametrize(("runs", "tokens", "width"), [(2, 150, 32), (3, 5, 20), (1, 1, 130)])
def test_sum_and_norm(runs: int, tokens: int, width: int, dtype: torch.dtype, used: int) -> None:
    tensors = leaves(dtype, (runs, tokens, width), (runs, tokens, width), (runs, width))
    found = run(lambda x, branch, gain: fused_pointwise.add_norm(x, branch, gain, pointwise.EPS), tensors, used)
    compare(found, run(pointwise.add_norm, [t.double() for t in tensors], used), dtype)


@pytest.mark.parametrize("dtype", ERROR, ids=str)
@pytest.mark.parametrize("shape", [(2, 5, 8), (1, 1030)])
def test_swiglu(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensors = leaves(dtype, shape, shape)
    compare(run(fused_pointwise.swiglu, tensors, 1), run(pointwise.swiglu, [t.double() for t in tensors], 1), dtype)


def test_a_nan_run_does_not_touch_its_neighbours() -> None:
    tensors = leaves(torch.float32, (3, 9, 16), (3, 9, 16), (3, 16))
    clean, hurt = (run(lambda *given: fused_pointwise.add_norm(*given, pointwise.EPS), ts, 2)
                   for ts in (tensors, [t.index_fill(0, torch.tensor(1), torch.nan) for t in tensors]))  # fmt: skip
    for ours, theirs in zip(hurt, clean, strict=True):
        assert torch.equal(ours[[0, 2]], theirs[[0, 2]])
        assert ours[1].isnan().all()
