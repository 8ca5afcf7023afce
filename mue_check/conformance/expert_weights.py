"""How the weights of all experts are stored in a block's parameters: one parameter each, or slices of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Values = Mapping[str, Tensor]
"""Tensors by dotted parameter name, used in place of the module's own."""


@dataclass(frozen=True, kw_only=True)
class ExpertTensor:
    """One tensor of every expert. ``name`` is the parameter's; {} stands for the expert where each has its own.

    ``dim`` is the axis of one parameter that holds all experts; None where each expert has its own parameter. On a
    flat axis of size E * n an expert has n neighboring rows, or every E-th row with ``minor``. With ``nulls`` the axis
    has one row per expert and then those of null experts, which stay as they are.
    """

    name: str
    dim: int | None = None
    minor: bool = False
    nulls: bool = False

    def names(self, experts: int) -> list[str]:
        """The parameters that hold it."""
        return [self.name] if self.dim is not None else [self.name.replace("{}", str(e)) for e in range(experts)]

    def stack(self, values: Values, experts: int) -> Tensor:
        """[E, ...]: each expert's tensor, without axes of size 1."""
        if self.dim is None:
            whole = torch.stack([values[name] for name in self.names(experts)])
        else:
            whole = self._split(values[self.name], experts)
        return whole.reshape(experts, *(n for n in whole.shape[1:] if n > 1))

    def unstack(self, values: Values, stacked: Tensor) -> dict[str, Tensor]:
        """The parameters, in their own shape, that hold ``stacked`` [E, ...]."""
        experts = len(stacked)
        if self.dim is None:
            return {n: stacked[e].reshape(values[n].shape) for e, n in enumerate(self.names(experts))}
        old = values[self.name]
        own = self._own(old, experts)
        new = stacked.reshape(self._split(old, experts).shape).movedim(0, self.dim + self.minor).reshape(own.shape)
        rest = old.narrow(self.dim, own.shape[self.dim], old.shape[self.dim] - own.shape[self.dim])
        return {self.name: torch.cat([new, rest], self.dim) if self.nulls else new}

    def _own(self, whole: Tensor, experts: int) -> Tensor:
        """Without the rows of null experts."""
        assert self.dim is not None
        return whole.narrow(self.dim, 0, experts) if self.nulls else whole

    def _split(self, whole: Tensor, experts: int) -> Tensor:
        assert self.dim is not None
        whole = self._own(whole, experts)
        rest = whole.shape[self.dim] // experts
        sizes = (rest, experts) if self.minor else (experts, rest)
        shape = (*whole.shape[: self.dim], *sizes, *whole.shape[self.dim + 1 :])
        return whole.reshape(shape).movedim(self.dim + self.minor, 0)


def keep_experts(tensors: Sequence[ExpertTensor], values: Values, keep: Tensor) -> dict[str, Tensor]:
    """The values with the weights of all experts outside ``keep`` [E] bool set to 0."""
    out: dict[str, Tensor] = {}
    for tensor in tensors:
        stacked = tensor.stack(values, len(keep))
        # where, not a product: uninitialized memory may hold NaN
        out |= tensor.unstack(values, torch.where(expand(keep, stacked), stacked, torch.zeros_like(stacked)))
    return out


def random_values(tensors: Sequence[ExpertTensor], values: Values, experts: int, seed: int) -> dict[str, Tensor]:
    """Random weights large enough for every activation to be nonlinear, so that a zero init hides nothing."""
    generator = torch.Generator().manual_seed(104729 + seed)
    out: dict[str, Tensor] = {}
    for tensor in tensors:
        old = tensor.stack(values, experts)
        # 1.5 / sqrt(mean of both fans): hidden values of about 1.5 for tokens of size 1
        scale = 0.5 if old.dim() < 3 else 1.5 * old[0].numel() ** -0.25
        new = scale * torch.randn(old.shape, generator=generator, dtype=torch.float64)
        out |= tensor.unstack(values, new.to(old))
    return out


def expand(keep: Tensor, stacked: Tensor) -> Tensor:
    """[E, 1, ...]: a mask of experts with as many axes as ``stacked``."""
    return keep.view(-1, *[1] * (stacked.dim() - 1))
