"""Sizes and precision that kernels share with what calls them."""

import torch
from torch import Tensor

NORM_ROWS = 128
"""Tokens of one program of the norm."""


def norm_programs(tokens: int) -> int:
    """Programs of the norm for each run."""
    return -(-tokens // NORM_ROWS)


def power(size: int) -> int:
    """The power of two that holds a size; at least 16, which a product in Triton needs."""
    return max(16, 1 << (size - 1).bit_length())


def multiplies_in_full(x: Tensor) -> bool:
    """Whether products of this tensor are of float32 in full."""
    return x.dtype is torch.float32 and torch.get_float32_matmul_precision() == "highest"


def precision_of(x: Tensor) -> str:
    """``input_precision`` of its products."""
    return "ieee" if multiplies_in_full(x) else "tf32"
