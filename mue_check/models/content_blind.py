"""Experts drawn by a hash of the token's prefix: the control whose routing learns nothing.

Integers below 2^32 held in int64: no product overflows, so every machine draws the same experts.
"""

import torch
from torch import Tensor

from mue_check.models.choice import Routing, select
from mue_check.spec import Experts

_MASK = 2**32 - 1
_STEP = 0x9E3779B9
"""2^32 / golden ratio: multiples of it are spread evenly over the integers below 2^32."""


def mix(x: Tensor) -> Tensor:
    """A bijective hash of integers below 2^32: two rounds of xor-shift and multiply (T. Mueller, 0x45d9f3b)."""
    for _ in range(2):
        x = (((x >> 16) ^ x) * 0x45D9F3B) & _MASK
    return (x >> 16) ^ x


def prefix_keys(tokens_RBT: Tensor) -> Tensor:
    """[R, B*T] int64 below 2^32: a hash of each token with all those before it in its sequence, in their order."""
    position = torch.arange(tokens_RBT.shape[-1], device=tokens_RBT.device)
    return (mix((tokens_RBT + position * _STEP) & _MASK).cumsum(-1) & _MASK).flatten(1)


def content_blind(prefix_RM: Tensor, layer: int, experts: Experts, dtype: torch.dtype) -> Routing:
    """a/G different experts of each group, all sets alike likely, weights 1/a."""
    expert = torch.arange(experts.total, device=prefix_RM.device)
    key_RM1 = mix((prefix_RM + layer * _STEP) & _MASK).unsqueeze(-1)
    # the order of N hashes is a random permutation: its first a are a set drawn without replacement
    indices = select(mix((key_RM1 + expert * _STEP) & _MASK), experts).indices
    return Routing(torch.full(indices.shape, 1 / experts.activated, dtype=dtype, device=indices.device), indices)
