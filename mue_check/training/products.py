"""What this process multiplies float32 matrices in on a GPU."""

import torch

from mue_check.precision import Precision


def set_products(precision: Precision, device: torch.device) -> None:
    """Let CUDA use TF32, or not, from now on; a captured graph keeps what it was captured with."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
