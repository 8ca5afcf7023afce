"""A user's module called for R runs, at once by vmap or run after run, and the choice that its return makes.

The return is read by shape, never by value, so nothing syncs. The adapter (``routing.adapter``) has learned where each
part lies; it reads one run, and checks the values.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mue_check.errors import ClaimError
from mue_check.plain import plain
from mue_check.routing.adapter import Path
from mue_check.routing.canonical import from_expert_choice, from_token_choice
from mue_check.routing.choice import Choice, DenseChoice, ExpertChoice, TokenChoice
from mue_check.routing.claim import Field
from mue_check.user_code import describe_error, no_exit

Returned = Mapping[str, Tensor]
"""[R, ...] by part: weights, indices, combine, mask, logits, aux, as far as the router has them."""
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


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a router's parts become a choice. ``by_expert``: indices are tokens, [E, C].

    ``slots``: each row's indices were in range and all different when it was tried, so slots can stay as they are.
    Otherwise they become a matrix, in which a dropped slot vanishes and a repeated index counts twice.
    """

    by_expert: bool
    slots: bool

    def choice(self, found: Returned, tokens: int, experts: int, dtype: torch.dtype) -> Choice:
        """The choice of all runs, with weights in the model's dtype."""
        if "combine" in found:
            return _dense(found, dtype)
        if "indices" not in found:  # a map of the one expert, and its weight
            return _dense({**found, "combine": found["mask"] * _columns(found["weights"])}, dtype)
        weights, indices = _columns(found["weights"]).to(dtype), _columns(found["indices"]).long()
        top = tokens if self.by_expert else experts
        dropped = (indices < 0) | (indices >= top)
        if weights.shape != indices.shape:  # scores over all experts, declared as the weights
            weights = weights.gather(-1, indices.masked_fill(dropped, 0))
        if self.slots:
            kind = ExpertChoice if self.by_expert else TokenChoice
            # none was dropped when it was tried; an index out of range would end a CUDA process
            return kind(weights.masked_fill(dropped, 0), indices.masked_fill(dropped, 0))
        read = from_expert_choice if self.by_expert else from_token_choice
        matrix, times = read(weights, indices.masked_fill(dropped, top), top)
        return DenseChoice(matrix, times > 0)


def part_at(returned: object, path: Path) -> Tensor:
    """The tensor at a path of positions, keys and attributes; LookupError or AttributeError where there is none."""
    for key in path:
        returned = returned[key] if isinstance(returned, Mapping | tuple | list) else getattr(returned, str(key))  # type: ignore[index]
    if not isinstance(returned, Tensor):
        raise LookupError(f"no tensor at {'.'.join(map(str, path))}")
    return plain(returned)


def _columns(part: Tensor) -> Tensor:
    """[R, rows, K], also where a = 1 was squeezed away."""
    return part.unsqueeze(-1) if part.dim() == 2 else part


def _dense(found: Returned, dtype: torch.dtype) -> DenseChoice:
    weights, met = found["combine"].to(dtype), found.get("mask")
    if weights.dim() == 4:  # by capacity slot, [R, T, E, C]
        weights = weights.sum(-1)
    if met is None:
        met = weights != 0
    elif met.dim() == 4:
        met = met.any(-1)
    return DenseChoice(weights, met.bool())
