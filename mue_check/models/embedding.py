"""Rows of a table on the run axis."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mue_check.models.pointwise import apply

FEW_ROWS = 256
"""Of a table whose gradient is one product on a GPU. The backward pass of indexing sorts the indices first, in a dozen
launches."""


def embedding(table_RVD: Tensor, rows_RBT: Tensor) -> Tensor:
    """[R, B, T, D]: these rows of each run's table."""
    if table_RVD.is_cuda and table_RVD.shape[1] <= FEW_ROWS:
        return apply(_FewRows, table_RVD, rows_RBT)
    return _take(table_RVD, rows_RBT)


def _take(table_RVD: Tensor, rows_RBT: Tensor) -> Tensor:
    run = torch.arange(len(rows_RBT), device=rows_RBT.device).view(-1, 1, 1)
    return table_RVD[run, rows_RBT]


class _FewRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table_RVD: Tensor, rows_RBT: Tensor) -> Tensor:
        row_RM1 = rows_RBT.flatten(1).unsqueeze(-1)
        ctx.save_for_backward(row_RM1)
        ctx.rows = table_RVD.shape[1]
        taken = table_RVD.gather(1, row_RM1.expand(-1, -1, table_RVD.shape[2]))
        return taken.view(*rows_RBT.shape, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        row_R1M = ctx.saved_tensors[0].transpose(1, 2)
        taken_RVM = gradient.new_zeros(len(row_R1M), ctx.rows, row_R1M.shape[2]).scatter_(1, row_R1M, 1.0)
        return torch.bmm(taken_RVM, gradient.flatten(1, 2)), None
