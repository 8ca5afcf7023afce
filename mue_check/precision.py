"""The precision of matrix products in training. Master weights, moments and the loss are always float32."""

from typing import Literal, get_args

from mue_check.errors import SpecError, unknown

Precision = Literal["fp32", "tf32", "bf16"]
"""fp32; tf32: products of 10-bit mantissas on a GPU's tensor cores; bf16: weights and activations rounded to bfloat16
(mixed precision with master weights, arXiv 1710.03740), with expert scores and the loss in float32."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def require_precision(precision: str, device: str) -> Precision:
    """``precision``, checked. Raises SpecError if it is unknown, or tf32 on a device without tensor cores."""
    if precision not in PRECISIONS:
        raise SpecError(unknown("precision", precision, PRECISIONS))
    if precision == "tf32" and device != "cuda":
        raise SpecError("precision tf32 needs a GPU's tensor cores: on a CPU use fp32 or bf16")
    return precision
