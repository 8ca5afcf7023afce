"""Move tokens to their experts and back, and the parts that grouped products share.

Both directions are gathers, whose sums always have the same order. index_add has no fixed order on CUDA.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mue_check.models.pointwise import apply


def spread(x_ND: Tensor, token_S: Tensor, row_NK: Tensor) -> Tensor:
    """[S, D]: row s holds token ``token_S[s]``. ``row_NK`` are the K rows through which a token gets its gradient."""
    return apply(_Spread, x_ND, token_S, row_NK)


def collect(rows_SD: Tensor, token_S: Tensor, row_NK: Tensor) -> Tensor:
    """[N, D]: sum over each token's K rows. Rows of no token must have weight 0: their gradient is wrong."""
    return apply(_Collect, rows_SD, token_S, row_NK)


def side_by_side(gate_RDEF: Tensor, up_RDEF: Tensor) -> Tensor:
    """[R*E, D, 2F]: for one product instead of two."""
    return torch.cat([gate_RDEF.transpose(1, 2), up_RDEF.transpose(1, 2)], dim=-1).flatten(0, 1)


def swiglu(both: Tensor) -> Tensor:
    """silu(gate) * up of a product with ``side_by_side``."""
    # copy first: pointwise operations take ten times as long on the short rows of a view
    halves: Tensor = both.view(*both.shape[:-1], 2, -1).movedim(-2, 0).contiguous()
    gate, up = halves.unbind(0)
    return F.silu(gate) * up


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, token_S: Tensor, row_NK: Tensor) -> Tensor:
        ctx.save_for_backward(row_NK)
        return x_ND.index_select(0, token_S)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_SD: Tensor) -> tuple[Tensor, None, None]:
        return _gather_sum(gradient_SD, ctx.saved_tensors[0]), None, None


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_SD: Tensor, token_S: Tensor, row_NK: Tensor) -> Tensor:
        ctx.save_for_backward(token_S)
        return _gather_sum(rows_SD, row_NK)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_ND: Tensor) -> tuple[Tensor, None, None]:
        return gradient_ND.index_select(0, ctx.saved_tensors[0]), None, None


def _gather_sum(rows_SD: Tensor, row_NK: Tensor) -> Tensor:
    if not rows_SD.is_cuda:
        return F.embedding_bag(row_NK, rows_SD, mode="sum")
    return rows_SD.index_select(0, row_NK.flatten()).view(*row_NK.shape, -1).sum(1)
