"""What a block adds without its routed experts: it must not depend on the router or the routed scale."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mue_check.conformance.block import ProbedBlock
from mue_check.conformance.check import BLOCKS, Check, CheckOutcome, failed, passed, skipped
from mue_check.conformance.checks.blockwise import TOLERANCE, blockwise, relative_error, sizes_of
from mue_check.conformance.expert_weights import keep_experts
from mue_check.conformance.hooks import ModuleCall, record_calls


@blockwise
@torch.no_grad()
def shared_unscaled(block: ProbedBlock) -> CheckOutcome:
    """The shared part depends neither on the router nor on the routed scale."""
    case, x = block.built.case, block.built.case.tokens()
    generator = torch.Generator().manual_seed(271 + case.seed)

    def drawn(names: Sequence[str], scale: float) -> dict[str, Tensor]:
        values = {n: block.values[n] for n in names}
        return {n: scale * torch.randn(v.shape, generator=generator).to(v) for n, v in values.items()}

    zeros = [n for n in block.groups["others"] if block.values[n].dim() > 1 and not bool(block.values[n].any())]
    none = torch.zeros(block.experts, dtype=torch.bool, device=x.device)
    values = {**keep_experts(block.form.tensors, block.values, none), **drawn(zeros, 0.3)}
    with record_calls(block.built.module, lambda m: m is not block.built.module) as calls:
        shared = block.built.output_with(values, x)
    if float(shared.norm()) <= 1e-6 * float(block.output(x).norm()):
        if case.claim.shared:
            return failed("the claim has shared experts, but without the routed ones the output is 0")
        return skipped("no shared part")
    router = block.groups["router"]
    moved = (block.built.output_with({**values, **drawn(router, 1.0)}, x) - shared).norm(dim=-1) / sizes_of(shared)
    if float(moved.max()) > TOLERANCE:
        return failed(
            f"the shared part changes by {float(moved.max()):.2g} of its size with the router's weights",
            worst=f"token {int(moved.argmax())}",
        )
    repeated = _depends_on_a(block, values, x, shared)
    if repeated is not None:
        return repeated
    measured = "does not change with the router's weights" if router else "the router's weights were not found"
    if not case.claim.shared:
        measured += "; the claim does not mention a shared part (shared = true)"
    multiple = _as_multiple(shared, calls)
    if multiple is None:
        return passed(measured)
    name, ratio = multiple
    for scale in {case.claim.route_scale, case.claim.expected_sum() or 1.0} - {1.0}:
        if min(abs(ratio / value - 1) for value in (scale, 1 / scale, scale**2)) <= 1e-2:
            return failed(
                f"{ratio:.4g} times {name}: the routed scale {scale:g} also multiplies the shared part", causes=(10,)
            )
    return passed(f"{measured}; it is {ratio:.3g} times {name}")


def _depends_on_a(block: ProbedBlock, values: Mapping[str, Tensor], x: Tensor, shared: Tensor) -> CheckOutcome | None:
    """A failure if the shared part changes with a; None also where the claim or the block allows only one a."""
    case, a = block.built.case, block.built.case.shape.activated
    if case.claim.top_k is not None or case.claim.per_group_k is not None or case.shape.experts < 2:
        return None
    at = replace(case, shape=replace(case.shape, activated=a + 1 if a < case.shape.experts else a - 1))
    try:
        built = at.build(dtype=block.built.dtype)
        built.module.load_state_dict(block.built.module.state_dict())
        other = built.output_with(values, x)
    except Exception:  # a size that it refuses, or one with other parameters
        return None
    error = relative_error(other, shared)
    if not float(error.max()) > TOLERANCE:
        return None
    ratio = float((other * shared).sum() / (shared * shared).sum())
    return failed(
        f"with a = {at.shape.activated} instead of {a} the shared part is {ratio:.4g} times as large: is it added "
        "once for each expert?",
        worst=f"token {int(error.argmax())}",
    )


def _as_multiple(shared: Tensor, calls: Sequence[ModuleCall]) -> tuple[str, float] | None:
    """(name, factor): the outermost part of the block whose output times this factor is the shared part."""
    for call in reversed(calls):
        if not isinstance(call.output, Tensor) or call.output.numel() != shared.numel():
            continue
        own = call.output.reshape(shared.shape).to(shared.dtype)
        ratio = float((shared * own).sum() / (own * own).sum().clamp_min(1e-30))
        if float((shared - ratio * own).norm()) <= TOLERANCE * float(shared.norm()):
            return call.name, ratio
    return None


CHECKS = (
    Check(
        run=shared_unscaled,
        source="arXiv 2412.19437: h = u + sum_shared FFN(u) + sum_routed g FFN(u)",
        candidates=BLOCKS,
    ),
)
