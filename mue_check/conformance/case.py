"""A case: a candidate at one shape and seed, its tokens, and the module built from it."""

import random
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from mue_check.conformance.expert_weights import Values
from mue_check.conformance.learned import Learned
from mue_check.conformance.torch_calls import block_output, computing_in
from mue_check.routing.adapter import Size
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.factory import SHAPES, Candidate, Shape, fitted


@dataclass(frozen=True, kw_only=True)
class ConformanceCase:
    """One candidate at one shape and seed, on a device."""

    candidate: Candidate
    shape: Shape
    seed: int
    device: torch.device
    chosen: bool = False
    """Whether the user named this shape: then it is part of what the candidate must support."""
    learned: Learned = field(default_factory=Learned)

    @property
    def claim(self) -> RoutingSpec:
        """What the candidate claims at this number of activated experts."""
        return self.candidate.claim.at(self.shape.activated)

    @property
    def is_router(self) -> bool:
        """Whether the candidate is a router, not a block."""
        return self.candidate.kind == "router"

    def at(self, **changes: int) -> "ConformanceCase":
        """The same case at the nearest other shape that the claim allows."""
        return replace(self, shape=fitted(replace(self.shape, **changes), self.claim))

    @property
    def first(self) -> "ConformanceCase":
        """The same case at a shape where nothing is ambiguous; with a = E no selection would be visible."""
        case = replace(self, shape=fitted(SHAPES[0], self.claim))
        return case if case.shape.experts > case.shape.activated else case.at(experts=2 * case.shape.experts)

    def build(self, *, dtype: torch.dtype = torch.float32, train: bool = False) -> "BuiltCandidate":
        """Build a fresh module; the same seed draws the same weights."""
        with _fork_rng(self.device):
            # torch.manual_seed would seed every kind of device, with a stack trace each: a third of a check's time
            torch.default_generator.manual_seed(1000 + self.seed)
            random.seed(1000 + self.seed)
            np.random.seed(1000 + self.seed)  # noqa: NPY002  (the global one is what an init may draw from)
            if self.device.type == "cuda":
                torch.cuda.manual_seed(1000 + self.seed)
            module = self.candidate.build(self.shape).to(device=self.device, dtype=dtype)
            built = BuiltCandidate(case=self, module=module, dtype=dtype)
            if any(map(is_lazy, [*module.parameters(), *module.buffers()])):
                built.call(self.tokens())  # lazy layers get their sizes from a first call
        module.train(train)
        return built

    def tokens(self, draw: int = 0, *, count: int | None = None) -> Tensor:
        """[T, D] standard normal activations, as a norm before the block returns them."""
        generator = torch.Generator().manual_seed(7919 * self.seed + draw)
        return torch.randn(count or self.shape.tokens, self.shape.d, generator=generator).to(self.device)

    @property
    def takes_batch(self) -> bool:
        """Whether the candidate is called with [1, T, D]: a block, or a router that does not take [T, D]."""
        if self.learned.takes_batch is None:
            self.learned.takes_batch = not self.is_router or _needs_batch(self.first)
        return self.learned.takes_batch


@dataclass(frozen=True, kw_only=True)
class BuiltCandidate:
    """The module of a case, ready to be called."""

    case: ConformanceCase
    module: nn.Module
    dtype: torch.dtype

    def call(self, x: Tensor) -> Any:
        """What the candidate returns for tokens [T, D]; a block receives them as one sequence."""
        x = x.to(self.dtype)
        x = x.unsqueeze(0) if self.case.takes_batch else x
        with computing_in(self.dtype):
            return self.module(x)

    def output(self, x: Tensor, rows: int = 1) -> Tensor:
        """[T, D]: a block's output for tokens split into ``rows`` sequences."""
        x = x.to(self.dtype)
        with computing_in(self.dtype):
            returned = self.module(x.view(rows, -1, x.shape[-1]))
        return block_output(returned, (rows, len(x) // rows, x.shape[-1])).reshape(x.shape)

    def output_with(self, values: Values, x: Tensor) -> Tensor:
        """[T, D]: a block's output with other values for some parameters."""
        x = x.to(self.dtype)
        with computing_in(self.dtype):
            returned = functional_call(self.module, dict(values), (x.unsqueeze(0),))
        return block_output(returned, (1, *x.shape)).squeeze(0)

    def parameters(self) -> dict[str, Tensor]:
        """The module's parameters by every name they have."""
        return dict(self.module.named_parameters(remove_duplicate=False))

    def size(self, x: Tensor) -> Size:
        """The sizes by which parts of a return for tokens [T, D] are recognized."""
        shape = self.case.shape
        return Size(tokens=len(x), experts=shape.experts, activated=shape.activated, lead=(1, len(x)))


def _fork_rng(device: torch.device) -> AbstractContextManager[None]:
    return torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else [])


def _needs_batch(case: ConformanceCase) -> bool:
    """Whether a router refuses tokens [T, D] and takes [1, T, D]."""
    try:
        with _fork_rng(case.device):
            module = case.candidate.build(case.shape).to(device=case.device, dtype=torch.float32).eval()
        x = case.tokens()
    except Exception:  # the check that builds this shape reports what is wrong
        return False
    for tokens in (x, x.unsqueeze(0)):
        try:
            with computing_in(torch.float32):
                module(tokens)
        except Exception:  # noqa: S112  (the other form of the tokens is tried)
            continue
        return tokens.dim() == 3
    return False
