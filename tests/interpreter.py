"""Run Triton kernels on a CPU. Import this before anything that imports Triton, which decides then how kernels run."""

import os
from collections.abc import Iterator

import pytest
import torch

from mue_check.models.kernels import HAS_TRITON

if HAS_TRITON and not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

needs_interpreter = pytest.mark.skipif(not HAS_TRITON or torch.cuda.is_available(), reason="needs Triton, and no GPU")


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fill new memory with NaN, so that what a kernel forgets to write shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter keeps bfloat16 as integers, and multiplies them as such."""
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    given = InterpreterBuilder.create_dot

    def wide(handle: TensorHandle) -> TensorHandle:
        if handle.data.dtype != np.uint16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self, a, b, *rest):
        return given(self, wide(a), wide(b), *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)
