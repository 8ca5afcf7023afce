"""The attention kernel on a CPU, by Triton's interpreter, against float64."""

import pytest
import torch

from mue_check.models.attention import attention
from mue_check.models.fused_attention import attention as by_kernel
from tests.interpreter import interpreted, needs_interpreter

__all__ = ["interpreted"]

pytestmark = [needs_interpreter, pytest.mark.usefixtures("interpreted")]
SHAPES = {  # N, T, H, K
    "headline": (2, 64, 2, 32),
    "one token": (3, 1, 1, 16),
    "two tokens": (3, 2, 2, 32),
    "odd": (2, 37, 3, 12),
    "wide": (1, 50, 1, 64),
}


def run(function, qkv: torch.Tensor, causal: bool) -> list[torch.Tensor]:
    leaf = qkv.detach().requires_grad_()
    out = function(leaf, 0.3, causal=causal)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out)
    return [out.detach(), torch.autograd.grad(out, leaf, upstream)[0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_attention_is_that_of_float64(shape: tuple[int, int, int, int], causal: bool, dtype: torch.dtype) -> None:
    sequences, context, heads, width = shape
    qkv = torch.randn(sequences, context, 3, heads, width, generator=torch.Generator().manual_seed(1)).to(dtype)
    for found, expected in zip(run(by_kernel, qkv, causal), run(attention, qkv.double(), causal), strict=True):
        assert found.dtype is dtype
        error = (found.double() - expected).norm()
        assert error <= (1e-5 if dtype is torch.float32 else 1e-2) * expected.norm()


def test_a_sequence_of_nan_does_not_touch_the_others() -> None:
    qkv = torch.randn(3, 5, 3, 2, 16)
    clean = run(by_kernel, qkv, True)
    qkv[1] = torch.nan
    for found, expected in zip(run(by_kernel, qkv, True), clean, strict=True):
        assert torch.equal(found[[0, 2]], expected[[0, 2]])
        assert found[1].isnan().all()
