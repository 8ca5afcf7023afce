"""Experts drawn by a hash of the whole sequence and the place in it: a control whose routing learns nothing.

The hash covers more than the prefix: at the first place the prefix is one token, so each expert would see a few symbols
only, and gamma came out at 0.40 instead of 0.50 (docs/choices.md). The hash of later tokens reveals nothing about them.

Integers are below 2^32 and stored in int64, so no product overflows and every machine draws the same experts.
"""

import torch
from torch import Tensor

from mue_check.routing.choice import Mixture, TokenChoice, select

_MASK = 2**32 - 1
_STEP = 0x9E3779B9
"""2^32 / golden ratio: multiples of it are spread evenly over the integers below 2^32."""


def mix(x: Tensor) -> Tensor:
    """A bijective hash of integers below 2^32: two rounds of xor-shift and multiply (T. Mueller, 0x45d9f3b)."""
    for _ in range(2):
        x = (((x >> 16) ^ x) * 0x45D9F3B) & _MASK
    return (x >> 16) ^ x


def place_keys(tokens_RBT: Tensor) -> Tensor:
    """[R, B*T] int64 below 2^32: a hash of each place with all tokens of its sequence, in their order."""
    position = torch.arange(tokens_RBT.shape[-1], device=tokens_RBT.device)
    sequence = mix((tokens_RBT + position * _STEP) & _MASK).sum(-1, keepdim=True)
    return mix((sequence + position * _STEP) & _MASK).flatten(1)


def expected_draws(experts: Mixture, device: torch.device) -> Tensor | None:
    """[E] float64: a p_e, how often a token draws each expert on average; None without a target load.

    Make it before the step: a CUDA graph capture refuses a copy from the host.
    """
    if not experts.target_load:
        return None
    return torch.tensor(experts.target_load, dtype=torch.float64, device=device) * experts.activated


def content_blind(
    key_RM: Tensor, layer: int, experts: Mixture, dtype: torch.dtype, expected_E: Tensor | None = None
) -> TokenChoice:
    """a/G different experts of each group with weights 1/a: all sets equally likely, or drawn by ``expected_E``."""
    if experts.target_load and expected_E is None:
        raise ValueError("a target load needs expected_E=expected_draws(experts, device)")
    expert = torch.arange(experts.total, device=key_RM.device)
    key_RM1 = mix((key_RM + layer * _STEP) & _MASK).unsqueeze(-1)
    hashes_RME = mix((key_RM1 + expert * _STEP) & _MASK)
    # the order of N hashes is a random permutation: its first a are a set drawn without replacement
    indices = select(hashes_RME, experts).indices if expected_E is None else draw(hashes_RME, experts, expected_E)
    return TokenChoice(torch.full(indices.shape, 1 / experts.activated, dtype=dtype, device=indices.device), indices)


def draw(hashes_RME: Tensor, experts: Mixture, expected_E: Tensor) -> Tensor:
    """[R, M, K]: a/G different experts of each group, expert e with probability ``expected_E`` exactly.

    Systematic sampling (W. G. Madow, 1949) in a random order: experts lie end to end on a line, each a p_e long, and
    every point u, u + 1, ... takes the expert that it falls on; none is longer than 1, so none is taken twice.
    """
    grouped = (*hashes_RME.shape[:2], experts.groups, experts.total // experts.groups)
    order = hashes_RME.view(grouped).argsort(-1)
    length = expected_E.view(experts.groups, -1).expand(grouped).gather(-1, order)
    ends = length.cumsum(-1)
    ends[..., -1] = experts.activated // experts.groups  # of rounding
    # another hash of the same token: the order must not know where the points lie
    u = mix((hashes_RME[..., :1] + _STEP) & _MASK).unsqueeze(-1).to(torch.float64) / 2.0**32
    after = (ends + u).floor()
    before = torch.cat([torch.zeros_like(after[..., :1]), after[..., :-1]], dim=-1)
    taken = (after > before).to(torch.int8)
    chosen = order.gather(-1, taken.topk(experts.activated // experts.groups, dim=-1).indices)
    first = torch.arange(experts.groups, device=order.device).unsqueeze(-1) * grouped[-1]
    return torch.flatten(chosen + first, -2)
