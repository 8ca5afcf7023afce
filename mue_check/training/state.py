"""The state of a stack of runs: one flat buffer each for parameters, gradients and both moments."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mue_check.models.parameters import Parameter, initial_value
from mue_check.rules import Role


class RunState:
    """Four flat float32 buffers of R*P numbers. Each tensor [R, *shape] is contiguous in them.

    ``parameters`` are views of the parameter buffer by name, and their ``.grad`` are views of the gradient buffer, so
    that one pass over the flat buffers is one optimizer step for all runs. ``leaves`` are the tensors that a pass
    computes with: the parameters, or their copies in ``dtype``. ``restart`` fills the buffers.
    """

    def __init__(
        self,
        declared: Sequence[Parameter],
        *,
        init_std: Mapping[Role, float],
        runs: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.declared, self.init_std = tuple(declared), init_std
        self.runs = runs
        self.sizes = [self.runs * math.prod(p.shape) for p in self.declared]
        self.flat = torch.empty(sum(self.sizes), device=device)
        self._ones = torch.ones(runs, device=device)
        self.gradient, self.first, self.second = (torch.zeros_like(self.flat) for _ in range(3))
        self.parameters = self.named(self.flat)
        self._gradients = self._views(self.gradient)
        for parameter, gradient in zip(self.parameters.values(), self._gradients, strict=True):
            parameter.grad = gradient
        self._rounded = None if dtype is torch.float32 else torch.empty_like(self.flat, dtype=dtype)
        self.leaves = self.parameters if self._rounded is None else self.named(self._rounded)
        for leaf in self.leaves.values():
            leaf.requires_grad_(True)

    @torch.no_grad()
    def restart(self, seeds: Sequence[int]) -> None:
        """Draw the parameters of these seeds, one per run, and clear gradients and moments; in place."""
        for p, value in zip(self.declared, self.parameters.values(), strict=True):
            value.copy_(initial_value(p, self.init_std[p.role], seeds, value.device))
        for buffer in (self.gradient, self.first, self.second):
            buffer.zero_()

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """Views [R, *shape] of a buffer with this layout, by parameter name."""
        return dict(zip((p.name for p in self.declared), self._views(flat), strict=True))

    def _views(self, flat: Tensor) -> list[Tensor]:
        parts = torch.split(flat, self.sizes)
        return [part.view(self.runs, *p.shape) for part, p in zip(parts, self.declared, strict=True)]

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the parameters to ``leaves`` again, if those are copies."""
        if self._rounded is not None:
            self._rounded.copy_(self.flat)

    def differentiate(self, objective_R: Tensor) -> None:
        """Overwrite the gradient buffer with the gradient of a sum; 0 for parameters that it does not depend on."""
        leaves = list(self.leaves.values())
        gradients = torch.autograd.grad(objective_R, leaves, self._ones, allow_unused=True, materialize_grads=True)
        torch._foreach_copy_(self._gradients, gradients)

    def spread(self, by_role: Mapping[Role, float | Tensor], per_run: Tensor | None = None) -> Tensor:
        """[R*P]: the number of each parameter's role, or one for each run [R], times that of its run [R]."""
        device = self.flat.device
        per_run = torch.ones(self.runs, device=device) if per_run is None else per_run.to(device)
        here = {role: v.to(device) if isinstance(v, Tensor) else v for role, v in by_role.items()}
        return torch.cat(
            [
                (per_run * here[p.role]).repeat_interleave(size // self.runs, output_size=size)
                for p, size in zip(self.declared, self.sizes, strict=True)
            ]
        )

    @torch.no_grad()
    def scale_init(self, per_run: Mapping[Role, Tensor]) -> None:
        """Multiply the drawn parameters of these roles by a number per run, [R]; constants stay."""
        for p in self.declared:
            if p.constant is None and p.role in per_run:
                self.parameters[p.name].mul_(per_run[p.role].to(self.flat.device).view(-1, *[1] * len(p.shape)))

    def buffers(self) -> list[Tensor]:
        """Everything that a step changes in place."""
        rounded = [] if self._rounded is None else [self._rounded]
        return [self.flat, self.gradient, self.first, self.second, *rounded]
