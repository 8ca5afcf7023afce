"""What checks of blocks share: a block that is opened, or says what to declare; its losses, gradients and matrices."""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from mue_check.conformance.block import Block
from mue_check.conformance.block_probe import open_block
from mue_check.conformance.case import Case
from mue_check.conformance.experts import tied
from mue_check.conformance.registry import Finding, failed, unknown
from mue_check.errors import ClaimError
from mue_check.routing.factory import CandidateKind

BLOCKS: frozenset[CandidateKind] = frozenset({"block"})
TOLERANCE = 1e-3
"""Relative, of sums that are equal on paper: a gate may compute in float32 inside a block of float64."""


def blockwise(run: Callable[[Block], Finding]) -> Callable[[Case], Finding]:
    """A check of a case from one of its block; ``unknown`` where the experts were not found."""

    @wraps(run)
    def ask(case: Case) -> Finding:
        try:
            block = open_block(case)
        except ClaimError as error:
            name = tied(case)
            if name:
                return failed(f"all experts share one parameter and will stay equal: {name}", worst=name)
            return unknown(str(error))
        return run(block)

    return ask


def lengths(of: Tensor, *others: Tensor) -> Tensor:
    """[T]: the longest of some [T, D]; for tokens that get little, a tenth of what they get on average."""
    longest = torch.stack([t.detach().norm(dim=-1) for t in (of, *others)]).amax(0)
    return longest.clamp_min(0.1 * float(longest.mean()) + 1e-30)


def used_experts(block: Block, x: Tensor, combine: Tensor) -> Tensor:
    """[E] bool: the experts that add something to some token. One whose hidden values are all cut off adds nothing."""
    met = combine.detach() != 0
    if block.form.function is None:
        return met.any(0)
    with torch.no_grad():
        weighted = combine if block.built.case.claim.apply_on == "input" else None
        adds: Tensor = block.functions(x, weighted).norm(dim=-1).T > 0
        return (met & adds).any(0)


def matrices_of(block: Block, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """[E, out, in] by what they do, "gate", "up" and "down"; by name and as they lie where that is not known."""
    function, experts = block.form.function, block.experts
    if function is not None and function.parts:
        return {name: part.matrix(values, experts) for name, part in function.parts.items()}
    stacks = {w.name: w.stack(values, experts) for w in block.form.weights}
    return {name: stack for name, stack in stacks.items() if stack.dim() == 3}


def equal_experts(block: Block) -> Block:
    """The same block with every expert as the first."""
    values = dict(block.values)
    for w in block.form.weights:
        stack = w.stack(values, block.experts)
        values |= w.put(values, stack[:1].expand_as(stack))
    return Block(built=block.built, form=block.form, values=values)


def target_of(block: Block, tokens: int) -> Tensor:
    """[T, D] random numbers: what a task wishes of each output."""
    case = block.built.case
    generator = torch.Generator().manual_seed(53 + case.seed)
    drawn = torch.randn(tokens, case.shape.d, generator=generator, dtype=torch.float64)
    return drawn.to(case.device, block.built.dtype)


def pull(block: Block, y: Tensor) -> None:
    """Send a random gradient back from each output."""
    torch.autograd.backward((y * target_of(block, len(y))).sum())


def gradient_of(p: Tensor) -> Tensor:
    """What arrived at a parameter, 0 where nothing did."""
    return torch.zeros_like(p) if p.grad is None else p.grad


def numbered(chosen: Tensor) -> str:
    """Which experts, at most four of them by number."""
    found = chosen.nonzero().flatten().tolist()
    return ", ".join(map(str, found[:4])) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
