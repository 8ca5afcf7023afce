"""What a block adds without its routed experts: neither the router nor the routed scale has a say in it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mue_check.conformance.block import Block
from mue_check.conformance.case import outputs_of
from mue_check.conformance.checks.blockwise import BLOCKS, TOLERANCE, blockwise, lengths
from mue_check.conformance.experts import only, output_with
from mue_check.conformance.registry import Finding, check, failed, passed, skipped


@check(
    "shared-unscaled",
    law="the shared part depends neither on the router nor on the routed scale",
    source="arXiv 2412.19437: h = u + sum_shared FFN(u) + sum_routed g FFN(u)",
    candidates=BLOCKS,
)
@blockwise
@torch.no_grad()
def shared_unscaled(block: Block) -> Finding:
    """Take the routed experts away, then change the router, and compare with the part's own output."""
    case, x = block.built.case, block.built.case.tokens()
    generator = torch.Generator().manual_seed(271 + case.seed)
    zeros = [n for n in block.groups["others"] if block.values[n].dim() > 1 and not bool(block.values[n].any())]
    drawn = {n: 0.3 * torch.randn(block.values[n].shape, generator=generator).to(block.values[n]) for n in zeros}
    none = torch.zeros(block.experts, dtype=torch.bool, device=x.device)
    values = {**only(block.form.weights, block.values, none), **drawn}
    with outputs_of(block.built.module, lambda m: m is not block.built.module) as seen:
        shared = output_with(block.built, values, x)
    if float(shared.norm()) <= 1e-6 * float(block.output(x).norm()):
        if case.claim.shared:
            return failed("the claim has shared experts, and without the routed ones the output is 0")
        return skipped("no shared part")
    router = block.groups["router"]
    drawn = {n: torch.randn(block.values[n].shape, generator=generator).to(block.values[n]) for n in router}
    moved = (output_with(block.built, {**values, **drawn}, x) - shared).norm(dim=-1) / lengths(shared)
    if float(moved.max()) > TOLERANCE:
        worst = f"token {int(moved.argmax())}"
        return failed(
            f"the shared part moves by {float(moved.max()):.2g} of its size with the router's weights", worst=worst
        )
    found_at = _at_another_a(block, values, x)
    if found_at is not None:
        a, other = found_at
        apart = (other - shared).norm(dim=-1) / lengths(shared, other)
        if float(apart.max()) > TOLERANCE:
            ratio = float((other * shared).sum() / (shared * shared).sum())
            return failed(
                f"with a = {a} for {case.shape.activated} activated experts the shared part is {ratio:.4g} times as "
                "large: is it added once for each?",
                worst=f"token {int(apart.argmax())}",
            )
    words = "does not move with the router's weights" if router else "the router's weights were not found"
    if not case.claim.shared:
        words += "; the claim says nothing of a shared part (shared = true)"
    found = _multiple(shared, seen)
    if found is not None:
        name, ratio = found
        scales = {case.claim.route_scale, case.claim.expected_sum() or 1.0} - {1.0}
        for scale in scales:
            if min(abs(ratio / value - 1) for value in (scale, 1 / scale, scale**2)) <= 1e-2:
                return failed(
                    f"{ratio:.4g} times {name}: the routed scale {scale:g} is on the shared part too", causes=(10,)
                )
        return passed(f"{words}; it is {ratio:.3g} times {name}")
    return passed(words)


def _at_another_a(block: Block, values: Mapping[str, Tensor], x: Tensor) -> tuple[int, Tensor] | None:
    """Another number of activated experts and the shared part there; None where the claim or the block has one a."""
    case, a = block.built.case, block.built.case.shape.activated
    if case.claim.top_k is not None or case.claim.per_group_k is not None or case.shape.experts < 2:
        return None
    other = replace(case, shape=replace(case.shape, activated=a + 1 if a < case.shape.experts else a - 1))
    try:
        built = other.build(dtype=block.built.dtype)
        built.module.load_state_dict(block.built.module.state_dict())
        return other.shape.activated, output_with(built, values, x)
    except Exception:  # a size that it refuses, or one with other parameters
        return None


def _multiple(shared: Tensor, seen: Sequence[tuple[str, tuple[Any, ...], Any]]) -> tuple[str, float] | None:
    """The outermost part of the block of whose output the shared part is a multiple, and which one."""
    for name, _, output in reversed(seen):
        if not isinstance(output, Tensor) or output.numel() != shared.numel():
            continue
        own = output.reshape(shared.shape).to(shared.dtype)
        ratio = float((shared * own).sum() / (own * own).sum().clamp_min(1e-30))
        if float((shared - ratio * own).norm()) <= TOLERANCE * float(shared.norm()):
            return name, ratio
    return None
