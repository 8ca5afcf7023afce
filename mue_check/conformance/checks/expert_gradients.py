"""Do the experts learn, and does an expert without tokens do no harm?"""

import torch
from torch import Tensor

from mue_check.conformance.block import ProbedBlock
from mue_check.conformance.block_probe import probe_block
from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import BLOCKS, Check, CheckOutcome, failed, passed, skipped
from mue_check.conformance.checks.blockwise import (
    backpropagate_random,
    blockwise,
    expert_numbers,
    gradient_of,
    random_target,
    trained_matrices_of,
    used_experts,
)
from mue_check.conformance.checks.compare import first_token

_MANY = 1024
"""Tokens: a hundredth of them may be near a tie."""


def empty_expert(case: ConformanceCase) -> CheckOutcome:
    """An expert without tokens gives finite outputs and a gradient of exactly 0, never NaN.

    Tested with one token alone, and with a batch of copies of it, which all take the same experts.
    """
    outcomes = [
        blockwise(lambda block, count=count: _without_tokens(block, count))(case)  # type: ignore[misc]
        for count in dict.fromkeys((1, case.shape.tokens))
    ]
    return next((o for o in outcomes if o.status == "failed"), outcomes[-1])


def _without_tokens(block: ProbedBlock, count: int) -> CheckOutcome:
    x = block.built.case.tokens(count=1).expand(count, -1).contiguous()
    empty = ~block.routing(x).mask.any(0)
    if not bool(empty.any()):
        return skipped("every expert takes tokens")
    own = block.load()
    y = block.built.output(x)
    if not bool(y.isfinite().all()):
        measured = f"the output is not finite when experts {expert_numbers(empty)} get no token"
        return failed(measured, worst=first_token(~y.isfinite()))
    if not y.requires_grad:
        return skipped("no gradient at all: see expert-gradient")
    backpropagate_random(block, y)
    for name, p in own.items():
        if p.grad is not None and not bool(p.grad.isfinite().all()):
            measured = f"the gradient of {name} is not finite when experts {expert_numbers(empty)} get no token"
            return failed(measured, worst=name)
    missing = 0
    for tensor in block.form.tensors:
        names = tensor.names(block.experts)
        missing = max(missing, sum(own[n].grad is None for n in names) if tensor.dim is None else 0)
        stack = tensor.stack({n: gradient_of(own[n]) for n in names}, block.experts)
        wrong = (stack.flatten(1) != 0).any(1) & empty
        if bool(wrong.any()):
            largest = float(stack[wrong].abs().max())
            return failed(
                f"experts {expert_numbers(wrong)} get no token but a gradient of up to {largest:.2g}",
                worst=f"{tensor.name} of expert {int(wrong.nonzero()[0])}",
            )
    none = f"; {missing} have no gradient at all (None), which DDP treats as an error" if missing else ""
    return passed(f"{int(empty.sum())} of {block.experts} experts without a token: output finite, gradient 0{none}")


@blockwise
def expert_gradient(block: ProbedBlock) -> CheckOutcome:
    """Every expert that takes a token gets a gradient in each of its matrices.

    Matrices may be frozen if the experts have adapters, which are then trained.
    """
    x, own = block.built.case.tokens(), block.load()
    used = used_experts(block, x, block.routing(x).combine)
    frozen = [n for n in block.groups["experts"] if not own[n].requires_grad]
    if frozen and len(frozen) < len(block.groups["experts"]) and block.form.adapters:
        frozen = [n for t in block.form.adapters for n in t.names(block.experts) if not own[n].requires_grad]
    if frozen:
        return failed(f"{len(frozen)} of the experts' parameters require no gradient", worst=frozen[0], causes=(22,))
    y = block.built.output(x)
    if y.requires_grad:
        backpropagate_random(block, y)
    smallest = float("inf")
    for name, matrix in trained_matrices_of(block, {n: gradient_of(p) for n, p in own.items()}).items():
        size = matrix.flatten(1).norm(dim=1)
        if not bool(size.isfinite().all()):
            expert = int((~size.isfinite()).nonzero()[0])
            return failed(f"the gradient of {name} is not finite", worst=f"{name} of expert {expert}")
        without = used & (size == 0)
        if bool(without.any()):
            return failed(
                f"no gradient reaches {name} in {int(without.sum())} of {int(used.sum())} experts that take tokens",
                worst=f"{name} of expert {int(without.nonzero()[0])}",
                causes=(22,),
            )
        smallest = min(smallest, float(size[used].min())) if bool(used.any()) else smallest
    return passed(
        f"{int(used.sum())} of {block.experts} experts take tokens, the smallest gradient has norm {smallest:.2g}"
    )


def experts_train(case: ConformanceCase) -> CheckOutcome:
    """One step on a task loss changes every used expert's matrices, the router and the shared part.

    In training mode if the router returns what it selected in that same call.
    """

    @blockwise
    def check(block: ProbedBlock) -> CheckOutcome:
        return _changed_by_a_step(probe_block(case, train=True) if block.reads_router else block, block)

    return check(case)


def _changed_by_a_step(block: ProbedBlock, noiseless: ProbedBlock) -> CheckOutcome:
    x, own = block.built.case.tokens(), block.load()
    shared = _shared_parameters(noiseless, x)
    before = {n: p.detach().clone() for n, p in own.items()}
    y, routing = block.output_and_routing(x)
    used = used_experts(block, x, routing.combine)
    if not y.requires_grad:
        return failed("the output carries no gradient: nothing is trained", causes=(22,))
    torch.autograd.backward((y - random_target(block, len(x))).square().mean())
    size = float(torch.stack([p.detach().norm() for p in own.values()]).norm())
    slope = float(torch.stack([gradient_of(p).norm() for p in own.values()]).norm())
    with torch.no_grad():  # plain SGD by hand: constructing torch's first optimizer takes seconds
        for p in block.built.module.parameters():
            p.sub_(0.1 * size / max(slope, 1e-30) * gradient_of(p))
    changed = {n: (p.detach() != before[n]).to(y.dtype) for n, p in own.items()}
    for name, matrix in trained_matrices_of(block, changed).items():
        same = used & (matrix.flatten(1).amax(1) == 0)
        if bool(same.any()):
            return failed(
                f"{name} of {int(same.sum())} of {int(used.sum())} used experts does not change",
                worst=f"{name} of expert {int(same.nonzero()[0])}",
                causes=(22,),
            )
    for name in shared:
        if not bool(changed[name].any()):
            return failed(f"{name} affects the shared part and does not change", worst=name, causes=(22,))
    router, constant = block.groups["router"], _weights_are_constant(block.built.case)
    still = not any(bool(changed[n].any()) for n in router)
    if router and not constant and still and not _reaches_router(block):
        return failed("the router does not change", worst=router[0], causes=(1, 2))
    note = ", and the router" if router else ""
    if constant:
        note = "; the weights are constant by the claim, so nothing trains the router"
    also = " and the shared part" if shared else ""
    return passed(f"{int(used.sum())} of {block.experts} experts are used; they{also} change{note}")


def _reaches_router(block: ProbedBlock) -> bool:
    """Whether a gradient reaches the router from many tokens: some gates have one only where two logits nearly tie."""
    built = block.built.case.build(dtype=block.built.dtype, train=True)
    own = built.parameters()
    y = built.output(block.built.case.tokens(count=_MANY))
    if y.requires_grad:
        backpropagate_random(block, y)
    return any(bool(gradient_of(own[n]).any()) for n in block.groups["router"])


def _weights_are_constant(case: ConformanceCase) -> bool:
    """Whether the claim itself makes every weight a constant."""
    claim = case.claim
    if claim.weight_sum == "groups":
        return case.shape.activated == claim.groups
    return case.shape.activated == 1 and claim.expected_sum() is not None


def _shared_parameters(block: ProbedBlock, x: Tensor) -> list[str]:
    """The trained parameters that change the output without the routed experts."""
    with torch.no_grad():
        base = block.shared(x)
        zero = {n: torch.zeros_like(block.values[n]) for n in block.groups["experts"]}

        def matters(name: str) -> bool:
            other = 1.5 * block.values[name].detach() + 0.1
            return not torch.equal(block.built.output_with({**zero, name: other}, x), base)

        return [n for n in block.groups["others"] if block.values[n].requires_grad and matters(n)]


CHECKS = (
    Check(run=empty_expert, source="a mean over no tokens", candidates=BLOCKS),
    Check(run=expert_gradient, source="KellerJordan/Muon #65", candidates=BLOCKS),
    Check(run=experts_train, source="KellerJordan/Muon #65", candidates=BLOCKS),
)
