"""What must not matter: names of experts, order and company of tokens, padding, and the future."""

import torch
from torch import Tensor

from mue_check.conformance.case import Case
from mue_check.conformance.checks.compare import difference, fresh, observed
from mue_check.conformance.registry import Finding, check, failed, passed, skipped


@check(
    "expert-permutation",
    law="experts have no names: permuting the router's rows permutes its weights",
    source="symmetry",
    candidates=frozenset({"router"}),
)
def expert_permutation(case: Case) -> Finding:
    """Permute everything of size E in the router, groups as wholes."""
    built, x = case.build(), case.tokens()
    plain, groups, size = built.route(x), case.claim.groups, case.shape.experts
    generator = torch.Generator().manual_seed(case.seed)
    order = torch.arange(size).view(groups, -1)[torch.randperm(groups, generator=generator)]
    order = torch.stack([row[torch.randperm(len(row), generator=generator)] for row in order]).flatten().to(x.device)
    held = [*built.module.named_parameters(), *built.module.named_buffers()]
    twice = case.at(experts=2 * size).build().module
    grown = {name: tensor.shape for name, tensor in [*twice.named_parameters(), *twice.named_buffers()]}
    # another size may happen to be E: an axis of the experts grows with them
    axes = [
        [i for i, n in enumerate(tensor.shape) if n == size and grown.get(name, tensor.shape)[i : i + 1] == (2 * size,)]
        for name, tensor in held
    ]
    if not any(axes) or any(len(of_one) > 1 for of_one in axes):
        return skipped("which axes of the router's parameters are its experts cannot be told")
    with torch.no_grad():
        for (_, tensor), of_one in zip(held, axes, strict=True):
            if of_one:
                tensor.copy_(tensor.index_select(of_one[0], order))
    apart = difference(plain.combine.index_select(1, order), built.route(x).combine)
    if apart.real:
        return failed(f"after a permutation of the experts {apart}", worst=f"token {apart.worst}")
    return passed(f"weights move with their experts ({apart})")


@check(
    "token-permutation",
    law="the order of tokens does not matter",
    source="token choice; expert choice over one batch",
)
def token_permutation(case: Case) -> Finding:
    """Permute the tokens."""
    if case.claim.kind == "capacity":
        return skipped("places are given in the order of tokens")
    if case.candidate.kind == "block" and not case.claim.independent:
        return skipped("asked of token choice")
    built, x = case.build(), case.tokens()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(case.seed)).to(x.device)
    return _same(observed(built, x)[order], observed(built, x[order]), "after a permutation of the tokens")


@check(
    "token-independence",
    law="a token's routing does not depend on the other tokens of the batch",
    source="token choice (arXiv 1701.06538)",
)
def token_independence(case: Case) -> Finding:
    """Route the first tokens alone, and in other company."""
    if not case.claim.independent:
        return skipped(f"{case.claim.kind} lets tokens compete")
    built, x = case.build(), case.tokens()
    half = max(1, len(x) // 2)
    whole = observed(built, x)[:half]
    found = _same(whole, observed(built, x[:half]), f"the first {half} tokens routed alone", causes=(27,))
    if found.status == "failed":
        return found
    other = torch.cat([x[:half], fresh(half + 3, built, 5) * 4])
    found = _same(whole, observed(built, other)[:half], f"the first {half} tokens in other company", causes=(27,))
    if found.status == "failed" or case.candidate.kind == "router" or len(x) % 2:
        return found
    return _same(built.output(x), built.output(x, rows=2), "as two sequences of a batch, not one")


@check(
    "causality",
    law="an edit of later tokens leaves earlier ones as they were",
    source="MoSA #3, nanochat #844",
)
def causality(case: Case) -> Finding:
    """Replace the second half of the sequence by tokens of other sizes and directions."""
    if not case.claim.causal:
        return skipped("claimed not to be causal")
    if case.shape.tokens < 2:
        return skipped("one token has no past")
    built, x = case.build(), case.tokens()
    half = len(x) // 2
    whole = observed(built, x)[:half]
    for factor in (1.0, 10.0):
        edited = torch.cat([x[:half], factor * fresh(len(x) - half, built, 9)])
        found = _same(whole, observed(built, edited)[:half], "after an edit of later tokens", causes=(27,))
        if found.status == "failed":
            return found
    return found


@check(
    "padding",
    law="padding behind a batch changes nothing for its tokens",
    source="token choice",
)
def padding(case: Case) -> Finding:
    """Append tokens of zeros."""
    if not case.claim.independent:
        return skipped(f"{case.claim.kind}: capacity grows with the batch")
    built, x = case.build(), case.tokens()
    padded = torch.cat([x, torch.zeros_like(x)])
    return _same(observed(built, x), observed(built, padded)[: len(x)], "with padding behind them")


def _same(first: Tensor, second: Tensor, when: str, causes: tuple[int, ...] = ()) -> Finding:
    apart = difference(first, second)
    if apart.real:
        return failed(f"{when}: {apart}", worst=f"token {apart.worst}", causes=causes)
    return passed(f"{when}: {apart}")
