"""Attention on the run axis."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from mue_check.models import fused_attention
from mue_check.models.kernels import uses_kernel
from mue_check.models.pointwise import apply

KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Without cuDNN, which torch prefers for bfloat16 on Hopper: it makes a plan for every shape, which is untested in a
graph capture."""
SHORT = 64
"""Up to this context, whole matrices of scores are faster on a CPU than the fused kernel (docs/engine.md)."""


def attention(qkv: Tensor, scale: float, *, causal: bool) -> Tensor:
    """softmax(scale q k^T) v: [N, T, H*K] of [N, T, 3, H, K], for N sequences and H heads of width K.

    ``causal``: a position sees those before it and itself; otherwise it sees all.
    """
    sequences, context = qkv.shape[:2]
    if fused_attention.fits(qkv) and uses_kernel("attention", qkv):
        out: Tensor = fused_attention.attention(qkv, scale, causal)
        return out
    if qkv.is_cuda or qkv.dtype is torch.bfloat16 or context > SHORT:
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        with sdpa_kernel(KERNELS):
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
        return mixed.transpose(1, 2).reshape(sequences, context, -1)
    return apply(_WholeScores, qkv, scale, causal)


class _WholeScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, scale: float, causal: bool) -> Tensor:
        ctx.scale, (sequences, context, _, heads, width) = scale, qkv.shape
        q, k, v = heads_first = qkv.permute(2, 0, 3, 1, 4).reshape(3, sequences * heads, context, width)
        hidden = -torch.inf if causal else 0.0
        future = torch.full((context, context), hidden, dtype=qkv.dtype, device=qkv.device).triu(1)
        weights = torch.baddbmm(future, q, k.transpose(1, 2), alpha=scale).softmax(-1)
        ctx.save_for_backward(heads_first, weights)
        return _side_by_side(torch.bmm(weights, v), heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        heads_first, weights = ctx.saved_tensors
        q, k, v = heads_first
        sequences, context = gradient.shape[:2]
        heads = len(q) // sequences
        gradient = gradient.view(sequences, context, heads, -1).transpose(1, 2).reshape(v.shape)
        found = torch.empty_like(heads_first)
        torch.bmm(weights.transpose(1, 2), gradient, out=found[2])
        of_weights = torch.bmm(gradient, v.transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype).mul_(ctx.scale)
        torch.bmm(of_scores, k, out=found[0])
        torch.bmm(of_scores.transpose(1, 2), q, out=found[1])
        return found.view(3, sequences, heads, context, -1).permute(1, 3, 0, 2, 4).contiguous(), None, None


def _side_by_side(mixed: Tensor, heads: int) -> Tensor:
    """[N, T, H*K] of [N*H, T, K]."""
    return mixed.view(-1, heads, *mixed.shape[1:]).transpose(1, 2).reshape(-1, mixed.shape[1], heads * mixed.shape[2])
