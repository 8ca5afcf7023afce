"""What a block adds without its routed experts: neither the router nor the routed scale has a say in it."""

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
    subjects=BLOCKS,
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
    words = "does not move with the router's weights" if router else "the router's weights were not found"
    if not case.claim.shared:
        words += "; the claim says nothing of a shared part (shared = true)"
    for name, _, output in reversed(seen):
        if not isinstance(output, Tensor) or output.numel() != shared.numel():
            continue
        own = output.reshape(shared.shape).to(shared.dtype)
        ratio = float((shared * own).sum() / (own * own).sum().clamp_min(1e-30))
        if float((shared - ratio * own).norm()) > TOLERANCE * float(shared.norm()):
            continue
        scales = {case.claim.route_scale, case.claim.expected_sum() or 1.0} - {1.0}
        for scale in scales:
            if min(abs(ratio / value - 1) for value in (scale, 1 / scale, scale**2)) <= 1e-2:
                return failed(
                    f"{ratio:.4g} times {name}: the routed scale {scale:g} is on the shared part too", causes=(10,)
                )
        return passed(f"{words}; it is {ratio:.3g} times {name}")
    return passed(words)
