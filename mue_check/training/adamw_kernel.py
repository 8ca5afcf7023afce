"""One AdamW step as one Triton kernel: it reads and writes each number of the state once.

Triton itself is imported when the kernel is first launched.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mue_check.models.kernels.operation import operation

BLOCK = 2048
"""Numbers of one program. All have the same learning rate: a program never crosses from one run's part of a parameter
to the next."""


def blocks_of(lengths: Sequence[int], device: torch.device) -> Tensor:
    """[3, programs] int64: first number, number after the last, and segment, for segments of these lengths."""
    length = torch.tensor(lengths)
    end = length.cumsum(0)
    programs = (length + BLOCK - 1) // BLOCK
    segment = torch.arange(len(length)).repeat_interleave(programs)
    within = torch.arange(len(segment)) - (programs.cumsum(0) - programs)[segment]
    first = (end - length)[segment] + within * BLOCK
    return torch.stack([first, torch.minimum(first + BLOCK, end[segment]), segment]).to(device)


adamw = operation(
    "adamw(Tensor(a!) flat, Tensor gradient, Tensor(b!) first, Tensor(c!) second, Tensor blocks, Tensor rates,"
    " Tensor table, Tensor counter, float beta1, float beta2, bool aligned, int block) -> ()",
    module="adamw",
    fake=lambda *_: None,
)
"""Update parameters and moments in place. ``rates`` [3, segments]: learning rate, the same times decay, and eps;
``aligned``: every segment begins at a multiple of four numbers."""
