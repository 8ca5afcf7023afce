"""Do the experts learn, from the right gradient, and does one without tokens do no harm."""

import torch
from torch import Tensor

from mue_check.conformance.block import Block
from mue_check.conformance.block_probe import open_block
from mue_check.conformance.case import Case
from mue_check.conformance.checks.blockwise import (
    BLOCKS,
    blockwise,
    gradient_of,
    matrices_of,
    numbered,
    pull,
    target_of,
    used_experts,
)
from mue_check.conformance.experts import output_with
from mue_check.conformance.registry import Finding, check, failed, passed, skipped


@check(
    "empty-expert",
    law="an expert without tokens: finite output, a gradient of just 0 for it, never NaN",
    source="a mean over no tokens",
    candidates=BLOCKS,
)
def empty_expert(case: Case) -> Finding:
    """One token alone, then a batch of copies of it, which all take the same experts."""
    found = [_emptied(case, count) for count in dict.fromkeys((1, case.shape.tokens))]
    return next((f for f in found if f.status == "failed"), found[-1])


def _emptied(case: Case, count: int) -> Finding:
    return blockwise(lambda block: _without_tokens(block, count))(case)


def _without_tokens(block: Block, count: int) -> Finding:
    x = block.built.case.tokens(count=1).expand(count, -1).contiguous()
    routing = block.routing(x)
    empty = ~routing.mask.any(0)
    if not bool(empty.any()):
        return skipped("every expert takes tokens")
    own = block.load()
    y = block.built.output(x)
    if not bool(y.isfinite().all()):
        words = f"the output is not finite when experts {numbered(empty)} get no token"
        return failed(words, worst=f"token {int((~y.isfinite()).any(1).nonzero()[0])}")
    if not y.requires_grad:
        return skipped("no gradient at all: see expert-gradient")
    pull(block, y)
    for name, p in own.items():
        if p.grad is not None and not bool(p.grad.isfinite().all()):
            return failed(
                f"the gradient of {name} is not finite when experts {numbered(empty)} get no token", worst=name
            )
    missing = 0
    for w in block.form.weights:
        names = w.names(block.experts)
        missing = max(missing, sum(own[n].grad is None for n in names) if w.dim is None else 0)
        stack = w.stack({n: gradient_of(own[n]) for n in names}, block.experts)
        wrong = (stack.flatten(1) != 0).any(1) & empty
        if bool(wrong.any()):
            largest = float(stack[wrong].abs().max())
            words = f"experts {numbered(wrong)} get no token and still a gradient of up to {largest:.2g}"
            return failed(words, worst=f"{w.name} of expert {int(wrong.nonzero()[0])}")
    none = f"; {missing} have no gradient at all (None), which DDP takes for an error" if missing else ""
    return passed(f"{int(empty.sum())} of {block.experts} experts without a token: output finite, gradient 0{none}")


@check(
    "expert-gradient",
    law="every expert that takes a token gets a gradient in each of its matrices",
    source="KellerJordan/Muon #65",
    candidates=BLOCKS,
)
@blockwise
def expertgradient_of(block: Block) -> Finding:
    """Draw a gradient for each output and look at what arrives."""
    x, own = block.built.case.tokens(), block.load()
    used = used_experts(block, x, block.routing(x).combine)
    frozen = [n for n in block.groups["experts"] if not own[n].requires_grad]
    if frozen:
        return failed(f"{len(frozen)} of the experts' parameters require no gradient", worst=frozen[0], causes=(22,))
    y = block.built.output(x)
    if y.requires_grad:
        pull(block, y)
    smallest = float("inf")
    for name, matrix in matrices_of(block, {n: gradient_of(p) for n, p in own.items()}).items():
        size = matrix.flatten(1).norm(dim=1)
        if not bool(size.isfinite().all()):
            return failed(
                f"the gradient of {name} is not finite",
                worst=f"{name} of expert {int((~size.isfinite()).nonzero()[0])}",
            )
        without = used & (size == 0)
        if bool(without.any()):
            return failed(
                f"no gradient reaches {name} of {int(without.sum())} of {int(used.sum())} experts that take tokens",
                worst=f"{name} of expert {int(without.nonzero()[0])}",
                causes=(22,),
            )
        smallest = min(smallest, float(size[used].min())) if bool(used.any()) else smallest
    return passed(
        f"{int(used.sum())} of {block.experts} experts take tokens, the smallest gradient has norm {smallest:.2g}"
    )


@check(
    "experts-train",
    law="after one step on a task's loss every used expert's matrices, the router and the shared part have moved",
    source="KellerJordan/Muon #65",
    candidates=BLOCKS,
)
def experts_train(case: Case) -> Finding:
    """One step of SGD, in training mode where the router itself says what it chose in that call."""
    return blockwise(lambda block: _trained(open_block(case, train=True) if block.reads_router else block, block))(case)


def _trained(block: Block, still: Block) -> Finding:
    """``still`` is the same without the noise of training."""
    x, own = block.built.case.tokens(), block.load()
    shared = _reaches_shared(still, x)
    before = {n: p.detach().clone() for n, p in own.items()}
    y, routing = block.observe(x)
    used = used_experts(block, x, routing.combine)
    if not y.requires_grad:
        return failed("the output carries no gradient: nothing is trained", causes=(22,))
    torch.autograd.backward((y - target_of(block, len(x))).square().mean())
    size = float(torch.stack([p.detach().norm() for p in own.values()]).norm())
    slope = float(torch.stack([gradient_of(p).norm() for p in own.values()]).norm())
    with torch.no_grad():  # plain SGD by hand: constructing torch's costs seconds when it is the first
        for p in block.built.module.parameters():
            p.sub_(0.1 * size / max(slope, 1e-30) * gradient_of(p))
    moved = {n: (p.detach() != before[n]).to(y.dtype) for n, p in own.items()}
    for name, matrix in matrices_of(block, moved).items():
        same = used & (matrix.flatten(1).amax(1) == 0)
        if bool(same.any()):
            return failed(
                f"{name} of {int(same.sum())} of {int(used.sum())} used experts stays as it was drawn",
                worst=f"{name} of expert {int(same.nonzero()[0])}",
                causes=(22,),
            )
    for name in shared:
        if not bool(moved[name].any()):
            return failed(f"{name} shapes the shared part and stays as it was drawn", worst=name, causes=(22,))
    router = block.groups["router"]
    constant = _constant_weights(block.built.case)
    if router and not constant and not any(bool(moved[n].any()) for n in router):
        return failed("the router stays as it was drawn", worst=router[0], causes=(1, 2))
    words = f"{int(used.sum())} of {block.experts} experts are used and moved" + (
        ", the shared part too" if shared else ""
    )
    note = (
        "; the weights are constant by the claim, so that nothing trains the router"
        if constant
        else ", the router too"
        if router
        else ""
    )
    return passed(words + note)


def _constant_weights(case: Case) -> bool:
    """Whether the claim itself leaves a weight nothing to be but one number."""
    claim = case.claim
    if claim.weight_sum == "groups":
        return case.shape.activated == claim.groups
    return case.shape.activated == 1 and claim.expected_sum() is not None


def _reaches_shared(block: Block, x: Tensor) -> list[str]:
    """Those other parameters that are to be trained and change what is left without the routed experts."""
    own, found = {n: p for n, p in block.values.items() if n in block.groups["others"]}, []
    with torch.no_grad():
        base = block.shared(x)
        zero = {n: torch.zeros_like(block.values[n]) for n in block.groups["experts"]}
        for name, p in own.items():
            other = output_with(block.built, {**zero, name: 1.5 * p.detach() + 0.1}, x)
            if p.requires_grad and not torch.equal(other, base):
                found.append(name)
    return found
