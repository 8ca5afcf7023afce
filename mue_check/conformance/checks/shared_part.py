"""What a block adds without its routed experts: it must not depend on the router, nor have a factor of its own."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mue_check.conformance.block import ProbedBlock
from mue_check.conformance.check import BLOCKS, Check, CheckOutcome, failed, passed, skipped
from mue_check.conformance.checks.blockwise import TOLERANCE, blockwise, relative_error, sizes_of
from mue_check.conformance.expert_function import possible_functions
from mue_check.conformance.expert_weights import ExpertTensor, keep_experts
from mue_check.conformance.torch_calls import ModuleCall, record_calls

_SEVERAL = 8
"""Tokens: with one alone every factor is constant."""


@blockwise
@torch.no_grad()
def shared_unscaled(block: ProbedBlock) -> CheckOutcome:
    """The shared part depends neither on the router nor on a factor that the claim does not state.

    What null experts pass on is no shared part.
    """
    case = block.built.case
    x = case.tokens(count=max(case.shape.tokens, _SEVERAL))
    generator = torch.Generator().manual_seed(271 + case.seed)

    def drawn(names: Sequence[str], scale: float) -> dict[str, Tensor]:
        values = {n: block.values[n] for n in names}
        return {n: scale * torch.randn(v.shape, generator=generator).to(v) for n, v in values.items()}

    zeros = [n for n in block.groups["others"] if block.values[n].dim() > 1 and not bool(block.values[n].any())]
    none = torch.zeros(block.experts, dtype=torch.bool, device=x.device)
    values = {**block.values, **keep_experts(block.form.tensors, block.values, none), **drawn(zeros, 0.3)}
    with record_calls(block.built.module, lambda m: m is not block.built.module) as calls:
        shared = block.built.output_with(values, x)
    size, identity = float(block.output(x).norm()), block.identity_output(x)
    repeated = _depends_on_a(block, values, x, shared - identity)
    router = drawn(block.groups["router"], 1.0)
    moved = block.built.output_with({**values, **router}, x) - shared
    own = block.built.parameters()
    for name, value in router.items():
        own[name].copy_(value)
    moved_identity = block.identity_output(x) - identity
    kinds = {"identity": (identity, moved_identity), "zero": (torch.zeros_like(identity),) * 2}
    kind = min(kinds, key=lambda kind: float((moved - kinds[kind][1]).norm()))
    part, moved_part = kinds[kind]
    shared, moved = shared - part, (moved - moved_part).norm(dim=-1) / sizes_of(shared)
    if case.claim.null_experts not in (None, kind) and float(identity.norm()) > 1e-6 * size:
        return failed(f"null experts {_NULLS[kind]}; the claim says that they {_NULLS[case.claim.null_experts]}")
    if float(shared.norm()) - float(part.norm()) * 1e-6 <= 1e-6 * size:
        if case.claim.shared:
            return failed("the claim has shared experts, but without the routed ones the output is 0")
        return skipped(f"no shared part; null experts {_NULLS[kind]}" if bool(identity.any()) else "no shared part")
    if float(moved.max()) > TOLERANCE:
        return failed(
            f"the shared part changes by {float(moved.max()):.2g} of its size with the router's weights",
            worst=f"token {int(moved.argmax())}",
        )
    if repeated is not None:
        return repeated
    bare = torch.equal(block.expert_input(x), x)  # a block with a norm of its own may well have a residual of its own
    if bare and not case.claim.shared and float(relative_error(shared, x).max()) <= TOLERANCE:
        return failed(
            "without its routed experts the block returns its input, so the residual would be added twice; if the "
            "block is meant to add it, claim shared = true"
        )
    measured = "does not change with the router's weights" if router else "the router's weights were not found"
    if not case.claim.shared:
        measured += "; the claim does not mention a shared part (shared = true)"
    multiple = _as_multiple(block, values, x, shared, calls)
    if multiple is None:
        return passed(measured)
    name, ratio = multiple
    if abs(ratio / case.claim.shared_scale - 1) <= TOLERANCE:
        return passed(f"{measured}; it is {ratio:.3g} times {name}")
    for scale in {case.claim.route_scale, case.claim.expected_sum() or 1.0} - {1.0}:
        if min(abs(ratio / value - 1) for value in (scale, 1 / scale, scale**2)) <= 1e-2:
            return failed(
                f"{ratio:.4g} times {name}: the routed scale {scale:g} also multiplies the shared part", causes=(10,)
            )
    return failed(f"the shared part is {ratio:.4g} times {name}; if that is intended, claim shared_scale={ratio:.4g}")


_NULLS = {"identity": "pass their input on", "zero": "add nothing"}


def _depends_on_a(block: ProbedBlock, values: Mapping[str, Tensor], x: Tensor, shared: Tensor) -> CheckOutcome | None:
    """A failure if the shared part changes with a; None also where the claim or the block allows only one a."""
    case, a = block.built.case, block.built.case.shape.activated
    if case.claim.top_k is not None or case.claim.per_group_k is not None or case.shape.experts < 2:
        return None
    if case.claim.kind == "variable":  # what null experts pass on changes with a
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


def _as_multiple(
    block: ProbedBlock, values: Mapping[str, Tensor], x: Tensor, shared: Tensor, calls: Sequence[ModuleCall]
) -> tuple[str, float] | None:
    """(name, factor): what the shared part is a constant times of, by itself or with a gate sigmoid(g) per token."""
    gates = [("", torch.ones_like(shared[:, :1]))]
    for name, gate in _gates(block, x, calls):
        gates.append((f" with the gate {name}", gate.sigmoid()))
    for name, own in [*_functions(block, values, x), *_outputs(shared, calls)]:
        # one ratio per token, over tokens that are not 0
        ratio = (shared * own).sum(-1, keepdim=True) / (own * own).sum(-1, keepdim=True).clamp_min(1e-30)
        if not float((shared - ratio * own).norm()) <= TOLERANCE * float(shared.norm()):
            continue
        for gate_name, gate in gates:
            factor = float((ratio * gate).sum() / (gate * gate).sum())
            if float((shared - factor * gate * own).norm()) <= TOLERANCE * float(shared.norm()):
                return name + gate_name, factor
    return None


def _functions(block: ProbedBlock, values: Mapping[str, Tensor], x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Every feed-forward function that the parameters outside of experts and router allow, with its output."""
    names = [n for n in block.groups["others"] if min(values[n].shape, default=1) > 1 or values[n].dim() == 1]
    matrices = [n for n in names if values[n].dim() == 2]
    prefix = _common_prefix(matrices)
    tensors = [ExpertTensor(name=n) for n in names if n.startswith(prefix)]
    if not 2 <= len(matrices) <= 3:
        return
    inputs = [x.to(block.built.dtype), block.expert_input(x)]
    for tokens in inputs[: 1 if torch.equal(*inputs) else 2]:
        for function in possible_functions(block.built.module, values, tensors, 1, x.shape[1], None):
            yield (
                prefix[:-1] or f"the function of {', '.join(matrices)}",
                function.outputs(block.built.module, values, tokens, 1)[0],
            )


def _outputs(shared: Tensor, calls: Sequence[ModuleCall]) -> Iterator[tuple[str, Tensor]]:
    """The outputs [T, D] of the block's parts, the outermost first, and their sums over lists of parts."""
    sums: dict[str, Tensor] = {}
    for call in reversed(calls):
        if isinstance(call.output, Tensor) and call.output.numel() == shared.numel():
            own = call.output.reshape(shared.shape).to(shared.dtype)
            yield call.name, own
            several = re.sub(r"\d+", "*", call.name)
            sums[several] = sums[several] + own if several in sums else own
    yield from sums.items()


def _gates(block: ProbedBlock, x: Tensor, calls: Sequence[ModuleCall]) -> Iterator[tuple[str, Tensor]]:
    """Names and values [T, 1] of what may gate the shared part: a part with one output, or a vector [1, D]."""
    for call in calls:
        if isinstance(call.output, Tensor) and call.output.numel() == len(x):
            yield call.name, call.output.reshape(-1, 1).to(block.built.dtype)
    for name in block.groups["others"]:
        if block.values[name].numel() == x.shape[1]:
            yield name, x.to(block.built.dtype) @ block.values[name].reshape(-1, 1)


def _common_prefix(names: Sequence[str]) -> str:
    parts = [name.split(".")[:-1] for name in names]
    same = [first for first, *rest in zip(*parts, strict=False) if set(rest) <= {first}]
    return "".join(part + "." for part in same)


CHECKS = (
    Check(
        run=shared_unscaled,
        source="arXiv 2412.19437: h = u + sum_shared FFN(u) + sum_routed g FFN(u)",
        candidates=BLOCKS,
    ),
)
