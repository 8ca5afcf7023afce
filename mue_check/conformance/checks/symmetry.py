"""What must not matter: the names of experts, the order and number of tokens, padding, and the future."""

import torch

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import ROUTERS, Check, CheckOutcome, failed, passed, skipped
from mue_check.conformance.checks.compare import compare, difference
from mue_check.conformance.reading import result_of, route


def expert_permutation(case: ConformanceCase) -> CheckOutcome:
    """Experts are interchangeable: permuting the router's rows permutes its weights."""
    built, x = case.build(), case.tokens()
    plain, groups, size = route(built, x), case.claim.groups, case.shape.experts
    generator = torch.Generator().manual_seed(case.seed)
    order = torch.arange(size).view(groups, -1)[torch.randperm(groups, generator=generator)]
    order = torch.stack([row[torch.randperm(len(row), generator=generator)] for row in order]).flatten().to(x.device)
    tensors = [*built.module.named_parameters(), *built.module.named_buffers()]
    twice = case.at(experts=2 * size).build().module
    grown = {name: tensor.shape for name, tensor in [*twice.named_parameters(), *twice.named_buffers()]}
    # another size may equal E by chance, so the axis must also grow with E
    axes = [
        [i for i, n in enumerate(tensor.shape) if n == size and grown.get(name, tensor.shape)[i : i + 1] == (2 * size,)]
        for name, tensor in tensors
    ]
    if not any(axes) or any(len(own) > 1 for own in axes):
        return skipped("it is unclear which axes of the router's parameters are its experts")
    with torch.no_grad():
        for (_, tensor), own in zip(tensors, axes, strict=True):
            if own:
                tensor.copy_(tensor.index_select(own[0], order))
    found = difference(plain.combine.index_select(1, order), route(built, x).combine)
    if found.significant:
        return failed(f"after a permutation of the experts {found}", worst=f"token {found.worst}")
    return passed(f"weights move with their experts ({found})")


def token_permutation(case: ConformanceCase) -> CheckOutcome:
    """The order of the tokens does not matter."""
    if case.claim.kind == "capacity":
        return skipped("capacity is filled in the order of the tokens")
    if not case.is_router and not case.claim.independent:
        return skipped("applies to token choice")
    built, x = case.build(), case.tokens()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(case.seed)).to(x.device)
    return compare(result_of(built, x)[order], result_of(built, x[order]), "after a permutation of the tokens")


def token_independence(case: ConformanceCase) -> CheckOutcome:
    """A token's routing does not depend on the other tokens of the batch."""
    if not case.claim.independent:
        return skipped(f"tokens compete under {case.claim.kind}")
    built, x = case.build(), case.tokens()
    half = max(1, len(x) // 2)
    whole = result_of(built, x)[:half]
    outcome = compare(whole, result_of(built, x[:half]), f"the first {half} tokens routed alone", causes=(27,))
    if outcome.status == "failed":
        return outcome
    others = torch.cat([x[:half], case.tokens(5, count=half + 3) * 4])
    when = f"the first {half} tokens with other tokens"
    outcome = compare(whole, result_of(built, others)[:half], when, causes=(27,))
    if outcome.status == "failed" or case.is_router or len(x) % 2:
        return outcome
    return compare(built.output(x), built.output(x, rows=2), "as two sequences of a batch instead of one")


def causality(case: ConformanceCase) -> CheckOutcome:
    """Changing later tokens does not change earlier ones."""
    if not case.claim.causal:
        return skipped("the claim says not causal")
    if case.shape.tokens < 2:
        return skipped("a single token has no past")
    built, x = case.build(), case.tokens()
    half = len(x) // 2
    whole = result_of(built, x)[:half]
    for factor in (1.0, 10.0):
        edited = torch.cat([x[:half], factor * case.tokens(9, count=len(x) - half)])
        outcome = compare(whole, result_of(built, edited)[:half], "after a change of later tokens", causes=(27,))
        if outcome.status == "failed":
            return outcome
    return outcome


def padding(case: ConformanceCase) -> CheckOutcome:
    """Padding after a batch does not change the results of its tokens."""
    if not case.claim.independent:
        return skipped(f"under {case.claim.kind} the number of places grows with the batch")
    built, x = case.build(), case.tokens()
    padded = torch.cat([x, torch.zeros_like(x)])
    return compare(result_of(built, x), result_of(built, padded)[: len(x)], "with padding after them")


CHECKS = (
    Check(run=expert_permutation, source="symmetry", candidates=ROUTERS),
    Check(run=token_permutation, source="token choice; expert choice over one batch"),
    Check(run=token_independence, source="token choice (arXiv 1701.06538)"),
    Check(run=causality, source="MoSA #3, nanochat #844"),
    Check(run=padding, source="token choice"),
)
