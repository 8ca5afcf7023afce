"""What checks of blocks share: a probed block, a random loss, gradients and the experts' matrices."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps

import torch
from torch import Tensor

from mue_check.conformance.block import ProbedBlock
from mue_check.conformance.block_probe import probe_block
from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import CheckOutcome, failed
from mue_check.errors import ClaimError, UnreadableError

TOLERANCE = 1e-3
"""Relative, for sums that are equal on paper: a gate may compute in float32 inside a float64 block."""


def blockwise(run: Callable[[ProbedBlock], CheckOutcome]) -> Callable[[ConformanceCase], CheckOutcome]:
    """A check of a case from one of its block, which fails if that already shows a fault."""

    @wraps(run)
    def check(case: ConformanceCase) -> CheckOutcome:
        try:
            block = probe_block(case)
        except UnreadableError:
            raise
        except ClaimError as error:
            return failed(str(error))
        return run(block)

    return check


def relative_error(first: Tensor, second: Tensor) -> Tensor:
    """[T]: the length of the difference of two [T, D], relative to ``sizes_of`` them."""
    error: Tensor = (first - second).norm(dim=-1) / sizes_of(first, second)
    return error


def sizes_of(*tensors: Tensor) -> Tensor:
    """[T]: the longest of some [T, D]; at least a tenth of the mean, for tokens that get little."""
    longest = torch.stack([t.detach().norm(dim=-1) for t in tensors]).amax(0)
    return longest.clamp_min(0.1 * float(longest.mean()) + 1e-30)


def used_experts(block: ProbedBlock, x: Tensor, combine: Tensor) -> Tensor:
    """[E] bool: the experts that add something to some token; one whose hidden values are all 0 does not."""
    met = combine.detach() != 0
    if block.form.function is None:
        return met.any(0)
    with torch.no_grad():
        weighted = combine if block.built.case.claim.apply_on == "input" else None
        adds: Tensor = block.expert_outputs(x, weighted).norm(dim=-1).T > 0
        return (met & adds).any(0)


def matrices_of(block: ProbedBlock, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """[E, out, in] by role: "gate", "up" and "down"; by name and as stored if the roles are unknown."""
    function, experts = block.form.function, block.experts
    if function is not None and function.parts:
        return {name: part.matrix(values, experts) for name, part in function.parts.items()}
    stacks = {t.name: t.stack(values, experts) for t in block.form.tensors}
    return {name: stack for name, stack in stacks.items() if stack.dim() == 3}


def trained_matrices_of(block: ProbedBlock, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same for the experts' parameters that are trained; frozen ones may have adapters, which are named."""
    if not block.form.adapters:
        return matrices_of(block, values)
    own, experts = block.built.parameters(), block.experts
    stacks = {t.name: (t, t.stack(values, experts)) for t in block.form.tensors}
    return {n: s for n, (t, s) in stacks.items() if s.dim() == 3 and own[t.names(experts)[0]].requires_grad}


def with_equal_experts(block: ProbedBlock) -> ProbedBlock:
    """The same block with every expert a copy of the first."""
    values = dict(block.values)
    for tensor in block.form.tensors:
        stack = tensor.stack(values, block.experts)
        values |= tensor.unstack(values, stack[:1].expand_as(stack))
    return replace(block, values=values)


def random_target(block: ProbedBlock, tokens: int) -> Tensor:
    """[T, D] random numbers: the target of a task, or the gradient of its loss."""
    case = block.built.case
    generator = torch.Generator().manual_seed(53 + case.seed)
    drawn = torch.randn(tokens, case.shape.d, generator=generator, dtype=torch.float64)
    return drawn.to(case.device, block.built.dtype)


def backpropagate_random(block: ProbedBlock, y: Tensor) -> None:
    """Propagate a random gradient back from the output."""
    torch.autograd.backward((y * random_target(block, len(y))).sum())


def gradient_of(p: Tensor) -> Tensor:
    """The gradient of a parameter, 0 if it has none."""
    return torch.zeros_like(p) if p.grad is None else p.grad


def expert_numbers(mask: Tensor) -> str:
    """The numbers of the experts in a mask [E], at most four of them."""
    numbers = mask.nonzero().flatten().tolist()
    return ", ".join(map(str, numbers[:4])) + (f" and {len(numbers) - 4} more" if len(numbers) > 4 else "")
