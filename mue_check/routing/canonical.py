"""Routing: the decision of a router for T tokens and E experts, in one dense form for every kind of router."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Routing:
    """The canonical form. T and E are small in checks, so dense tensors are cheap and cover all kinds.

    ``combine`` [T, E]: weight of each token at each expert, 0 where they do not meet; carries the gradient.
    ``times`` [T, E]: how often an expert takes a token (more than once if an index is repeated). ``requested`` [T, E]
    bool: the choice before capacity dropped some tokens. ``logits`` and ``scores`` [T, E]: before and after the gate's
    function, if the router returns them. ``aux``: all other tensors that it returned. ``null_combine`` and
    ``null_times`` [T, Z]: weights and choice of Z null experts, if any; logits and scores then are [T, E + Z].
    """

    combine: Tensor
    times: Tensor
    requested: Tensor | None = None
    logits: Tensor | None = None
    scores: Tensor | None = None
    aux: Mapping[str, Tensor] = field(default_factory=dict)
    null_combine: Tensor | None = None
    null_times: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """[T, E] bool: which experts see which token."""
        return self.times > 0

    @property
    def sums(self) -> Tensor:
        """[T]: each token's sum of active weights."""
        return self.combine.sum(-1)

    @property
    def mask_with_nulls(self) -> Tensor:
        """[T, E + Z] bool: the same with null experts."""
        return self.mask if self.null_times is None else torch.cat([self.mask, self.null_times > 0], -1)

    @property
    def sums_with_nulls(self) -> Tensor:
        """[T]: each token's sum of weights, those of null experts included."""
        return self.sums if self.null_combine is None else self.sums + self.null_combine.sum(-1)

    @property
    def load(self) -> Tensor:
        """[E]: tokens per expert."""
        return self.mask.sum(0)


def from_token_choice(weights: Tensor, indices: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """(combine, times), [..., T, E], from [..., T, K] weights and indices; index -1 or E marks a dropped slot."""
    dropped = (indices == -1) | (indices == experts)
    slots = indices.long().masked_fill(dropped, experts)
    ones = torch.ones_like(slots)
    size = (*slots.shape[:-1], experts + 1)
    combine = weights.new_zeros(size).scatter_add(-1, slots, weights)
    times = ones.new_zeros(size).scatter_add(-1, slots, ones)
    return combine[..., :experts], times[..., :experts]


def from_expert_choice(weights: Tensor, indices: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """(combine, times), [..., T, E], from [..., E, C] weights and token indices."""
    combine, times = from_token_choice(weights, indices, tokens)
    return combine.mT, times.mT
