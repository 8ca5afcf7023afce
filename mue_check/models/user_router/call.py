"""A user's module called for R runs with each run's own tensors: at once by vmap, or run after run."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mue_check.errors import ClaimError
from mue_check.models.user_router.returns import Returned, part_at
from mue_check.routing.adapter import Path
from mue_check.routing.claim import Field
from mue_check.user_code import describe_error, no_exit

Tensors = Mapping[str, Tensor]
"""The module's parameters and buffers by their own names, [R, *shape] (without R for one run)."""
_REPEATED = re.compile(r"batching rule for ([\w:]+)")
"""The warning of torch where vmap falls back to a loop over one operation."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """The parts to read from a return, and the buffers whose new values to read too (``moving``)."""

    parts: Mapping[Field, Path]
    moving: tuple[str, ...] = ()

    def one(self, module: nn.Module, tensors: Tensors, x_MD: Tensor) -> dict[str, Tensor]:
        """The parts for one run, and each moving buffer by its name."""
        state = dict(tensors)
        returned = functional_call(module, state, (x_MD,))
        # functional_call leaves new values of buffers in the mapping
        return {name: part_at(returned, path) for name, path in self.parts.items()} | {n: state[n] for n in self.moving}

    def stacked(self, module: nn.Module, tensors: Tensors, x_RMD: Tensor) -> Returned:
        """All runs in one call."""
        found: Returned = torch.vmap(lambda own, x: self.one(module, own, x))(dict(tensors), x_RMD)
        return found

    def looped(self, modules: Sequence[nn.Module], tensors: Tensors, x_RMD: Tensor) -> Returned:
        """One run after another, each with its own module, which may keep state outside its buffers."""
        runs = [
            self.one(module, {name: value[run] for name, value in tensors.items()}, x_RMD[run])
            for run, module in enumerate(modules)
        ]
        return {name: torch.stack([found[name] for found in runs]) for name in runs[0]}


def try_both_ways(call: Call, module: nn.Module, tensors: Tensors, x_RMD: Tensor) -> tuple[str, tuple[str, ...]]:
    """Why the call cannot be stacked ("" if it can), and the operations that vmap itself repeats for each run."""
    x_RMD = x_RMD.detach().requires_grad_()
    leaves = [x_RMD, *(value for value in tensors.values() if value.requires_grad)]

    def inputs() -> tuple[Tensors, Tensor]:
        # copies: the call may change its buffers and its tokens in place
        return {name: value if value.requires_grad else value.clone() for name, value in tensors.items()}, x_RMD.clone()

    try:
        with no_exit():
            alone = call.looped([module, module], *inputs())
            _differentiate(alone, leaves)
    except Exception as error:  # a user's module may raise anything
        raise ClaimError(f"its gradient raises {describe_error(error, code=True)}") from None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with no_exit():
                together = call.stacked(module, *inputs())
                _differentiate(together, leaves)
        except Exception as error:  # vmap's own error, or one of the user's module
            return describe_error(error, code=True), ()
    for name, part in together.items():
        if not torch.allclose(alone[name].float(), part.float(), rtol=1e-3, atol=1e-4, equal_nan=True):
            return f"it would give other {name}", ()
    repeated = [match[1] for w in caught if (match := _REPEATED.search(str(w.message)))]
    return "", tuple(dict.fromkeys(repeated))


def _differentiate(found: Returned, leaves: Sequence[Tensor]) -> None:
    reached = [part.float().sum() for part in found.values() if part.requires_grad]
    if reached:
        torch.autograd.grad(torch.stack(reached).sum(), leaves, allow_unused=True)
