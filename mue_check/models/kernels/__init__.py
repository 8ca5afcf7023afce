"""Triton kernels, and where they are used. Triton itself is imported when one is first launched."""

import importlib.util
import os

import torch
from torch import Tensor

VARIABLE = "MUE_CHECK_KERNELS"
"""Names of the kernels to use, separated by commas, in place of DEFAULT; empty for none."""
DEFAULT = ""
HAS_TRITON = importlib.util.find_spec("triton") is not None


def uses_kernel(name: str, x: Tensor) -> bool:
    """Whether to use the kernels of that name where ``x`` is, in its precision.

    Names: ``experts``, ``router``, ``adamw`` and ``pointwise``.
    """
    return name in os.environ.get(VARIABLE, DEFAULT).split(",") and supports_triton(x)


def supports_triton(x: Tensor) -> bool:
    """Whether the kernels run there: Triton, and a GPU with matrix products of tf32 and bfloat16 (Ampere or later)."""
    if not (HAS_TRITON and x.is_cuda and x.dtype in (torch.float32, torch.bfloat16)):
        return False
    return torch.cuda.get_device_capability(x.device) >= (8, 0)
