"""Run Triton kernels on a CPU, by Triton's interpreter, which tests/conftest.py switches on."""

from collections.abc import Iterator

import pytest
import torch

from mue_check.models.kernels import HAS_TRITON

needs_interpreter = pytest.mark.skipif(not HAS_TRITON or torch.cuda.is_available(), reason="needs Triton, and no GPU")


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fill new memory with NaN, so that what a kernel forgets to write shows, and mend three faults of the interpreter.

    It multiplies the integers in which it keeps bfloat16, it cuts float32 off to bfloat16 where a GPU rounds, and in
    older versions NumPy refuses its bounds of loops.
    """
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    dot, cast, patch_tensor = builder.create_dot, builder.cast_impl, interpreter._patch_lang_tensor

    def wide(handle):
        if handle.data.dtype != np.uint16:
            return handle
        return interpreter.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def rounded(self, source, wanted):
        if source.dtype.scalar != tl.float32 or wanted.scalar != tl.bfloat16:
            return cast(self, source, wanted)
        numbers = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16()
        return interpreter.TensorHandle(numbers.view(torch.int16).numpy().view(np.uint16), tl.bfloat16)

    def patched(tensor, scope) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    monkeypatch.setattr(builder, "create_dot", lambda self, a, b, *rest: dot(self, wide(a), wide(b), *rest))
    monkeypatch.setattr(builder, "cast_impl", rounded)
    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
