"""Triton kernels, and where they are used. Triton itself is imported when one is first launched."""

import importlib.util
import os
import warnings
from functools import cache

import torch
from torch import Tensor

VARIABLE = "MUE_CHECK_KERNELS"
"""Names of the kernels to use for every shape, separated by commas; empty for none. If it is not set, all are used for
the shapes where they are the fastest."""
NAMES = ("experts", "dense", "router", "attention", "adamw", "pointwise")
HAS_TRITON = importlib.util.find_spec("triton") is not None


def uses_kernel(name: str, x: Tensor, *, fastest: bool = True) -> bool:
    """Whether to use the kernels of that name, one of NAMES, where ``x`` is, in its precision.

    ``fastest``: whether they are the fastest for this shape.
    """
    asked = os.environ.get(VARIABLE)
    wanted = fastest if asked is None else name in asked.split(",")
    return wanted and supports_triton(x)


def supports_triton(x: Tensor) -> bool:
    """Whether the kernels run there: Triton, and a GPU with matrix products of tf32 and bfloat16 (Ampere or later)."""
    if not (HAS_TRITON and x.is_cuda and x.dtype in (torch.float32, torch.bfloat16)):
        return False
    if torch.cuda.get_device_capability(x.device) < (8, 0):
        return False
    # what is being compiled has been launched before, if only to make the optimizer
    return torch.compiler.is_compiling() or _launches(x.device)


@cache
def _launches(device: torch.device) -> bool:
    """Whether a kernel can be compiled and launched. Triton needs a C compiler, which not every machine has."""
    try:
        from mue_check.models.kernels.pointwise import swiglu

        one = torch.ones(1, device=device)
        swiglu(one, one)
    except Exception as error:  # the import and the compilers below it raise errors of many kinds
        reason = (str(error).strip() or "no message").splitlines()[0]
        warnings.warn(
            f"Triton kernels cannot be launched on {device} ({type(error).__name__}: {reason}); slower operations of"
            f" torch take their place. Set {VARIABLE} to an empty value to use those without this warning.",
            stacklevel=2,
        )
        return False
    return True
