"""The precision in which this process multiplies float32 matrices on a GPU."""

import torch

from mue_check.precision import Precision


def set_products(precision: Precision, device: torch.device) -> None:
    """Switch TF32 on or off. A captured graph keeps the setting of its capture."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
