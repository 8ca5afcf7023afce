"""Right routers and blocks route and mix as plain loops over what their claims say."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mue_check.mutants.routing.examine import BLOCKS, ROUTERS
from mue_check.mutants.routing.experts import FlatExperts, SeparateExperts
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.factory import Candidate


@dataclass(frozen=True)
class Size:
    d: int
    f: int
    experts: int
    active: int
    tokens: int


SIZES = (
    Size(16, 8, 8, 2, 10),  # 2f = d
    Size(12, 20, 6, 1, 7),  # one expert, N no power of two
    Size(8, 8, 8, 8, 6),  # all experts, f = d
    Size(16, 12, 8, 2, 1),  # one token
    Size(24, 10, 20, 3, 33),
)


def make(candidate: Candidate, size: Size, seed: int = 0) -> Any:
    """The candidate in float64 at the nearest size that its claim allows; biases drawn so that they matter."""
    torch.manual_seed(seed)
    claim = candidate.claim
    experts = -(-size.experts // claim.groups) * claim.groups * (2 if claim.group_limit else 1)
    active = claim.top_k or (min(size.active, experts // 2) if claim.group_limit else size.active)
    sizes = (size.d, size.f, experts, active) if candidate.kind == "block" else (size.d, experts, active)
    module = candidate.factory(*sizes).double()
    for name, buffer in module.named_buffers():
        if name == claim.selection_bias:
            buffer.normal_(std=0.2)
    return module


def tokens(size: Size, seed: int = 0) -> Tensor:
    return torch.randn(size.tokens, size.d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def combine_of(returned: tuple[Tensor, ...], claim: RoutingSpec, count: int, experts: int) -> Tensor:
    """Weights [T, E], whatever the shape of the return."""
    if len(returned) == 4:
        return returned[1].sum(-1)
    at = [i for i, part in enumerate(returned) if part.dtype == torch.int64]
    if not at:
        return returned[0]
    if claim.kind == "expert_choice":
        indices, weights = returned
        return torch.zeros(experts, count, dtype=weights.dtype).scatter(1, indices, weights).T
    weights, indices = returned[at[0] - 1], returned[at[0]]
    assert all(len(set(row)) == len(row) for row in indices.tolist())
    return torch.zeros(count, experts, dtype=weights.dtype).scatter(1, indices, weights)


def expected(claim: RoutingSpec, logits: list[list[float]], bias: list[float], active: int) -> Tensor:
    """Weights [T, E] by plain loops over what the claim says."""
    experts, count = len(bias), len(logits)
    out = torch.zeros(count, experts, dtype=torch.float64)

    def softmax(row: list[float]) -> list[float]:
        return [math.exp(v) / sum(map(math.exp, row)) for v in row]

    scores = [softmax(row) if claim.gate == "softmax" else [1 / (1 + math.exp(-v)) for v in row] for row in logits]
    places = math.ceil(min(count, (claim.capacity_factor or math.inf) * count * active / experts))
    if claim.kind == "expert_choice":
        for e in range(experts):
            for t in sorted(range(count), key=lambda t: -scores[t][e])[:places]:
                out[t, e] = scores[t][e]
        return out
    chosen = [_choice(claim, [s + b for s, b in zip(row, bias, strict=True)], active) for row in scores]
    by_place = claim.causal  # the claim of a router with capacity: first come, first served
    for e in range(experts):
        asking = [t for t in range(count) if e in chosen[t]]
        kept = set((asking if by_place else sorted(asking, key=lambda t: -scores[t][e]))[:places])
        for t in asking:
            out[t, e] = scores[t][e] if t in kept else 0
    total = claim.expected_sum()
    if claim.kind == "capacity" and claim.order == "select_first":  # shares of what was asked, not of what was kept
        sums = torch.tensor([[sum(scores[t][e] for e in chosen[t])] for t in range(count)], dtype=torch.float64)
        return out / sums
    return out if total is None else torch.nan_to_num(out / out.sum(-1, keepdim=True)) * total


def _choice(claim: RoutingSpec, biased: list[float], active: int) -> list[int]:
    size = len(biased) // claim.groups
    groups = [list(range(g * size, (g + 1) * size)) for g in range(claim.groups)]
    if claim.per_group_k:
        best = [sorted(g, key=lambda e: -biased[e])[: claim.per_group_k] for g in groups]
        return [e for group in best for e in group]
    if claim.group_limit:
        groups = sorted(groups, key=lambda g: -sum(sorted((biased[e] for e in g), reverse=True)[:2]))
    allowed = [e for group in groups[: claim.group_limit] for e in group]
    return sorted(allowed, key=lambda e: -biased[e])[:active]


def router_reference(router: Any, claim: RoutingSpec, x: Tensor) -> Tensor:
    logits = x @ router.weight.T + getattr(router, "bias", torch.zeros(()))
    biases = dict(router.named_buffers())
    bias = next((b for n, b in biases.items() if n == str(claim.selection_bias).split(".")[-1]), None)
    return expected(claim, logits.tolist(), [0.0] * router.n_experts if bias is None else bias.tolist(), router.top_k)


def matrices(experts: Any, e: int) -> tuple[Tensor, Tensor, Tensor]:
    """One expert's gate [F, D], up [F, D] and down [D, F]."""
    if isinstance(experts, nn.ModuleList):
        one: Any = experts[e]
        return one.w1.weight, one.w3.weight, one.w2.weight
    if isinstance(experts, FlatExperts):
        rows = slice(e * experts.d_expert, (e + 1) * experts.d_expert)
        return experts.w1[rows], experts.v1[rows], experts.w2[rows].T
    if isinstance(experts, SeparateExperts):
        return experts.w1[e], experts.w3[e], experts.w2[e]
    both, down = experts.gate_up_proj[e], experts.down_proj[e]
    if experts.layout.axes == "in_out":
        both, down = both.T, down.T
    if experts.layout.fused == "interleaved":
        return both[::2], both[1::2], down
    return both[: experts.d_expert], both[experts.d_expert :], down


def block_reference(block: Any, claim: RoutingSpec, x: Tensor) -> Tensor:
    def swiglu(row: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        h = gate @ row
        return down @ (h / (1 + (-h).exp()) * (up @ row))

    weights = router_reference(block.get_submodule(claim.router), claim, x)
    y = torch.zeros_like(x)
    for (t, row), e in itertools.product(enumerate(x), range(weights.shape[1])):
        w, parts = weights[t, e], matrices(block.experts, e)
        y[t] += claim.route_scale * (swiglu(w * row, *parts) if claim.apply_on == "input" else w * swiglu(row, *parts))
    if claim.shared:
        one = block.shared_experts
        y += torch.stack([swiglu(row, one.w1.weight, one.w3.weight, one.w2.weight) for row in x])
    return y


@pytest.mark.parametrize("right", ROUTERS, ids=lambda right: right.name)
def test_right_routers_are_what_they_claim(right: Candidate) -> None:
    for size, seed in itertools.product(SIZES, range(2)):
        router, x = make(right, size, seed), tokens(size, seed)
        combine = combine_of(router(x), right.claim, len(x), router.n_experts)
        torch.testing.assert_close(combine, router_reference(router, right.claim, x), atol=1e-10, rtol=0)


@pytest.mark.parametrize("right", BLOCKS, ids=lambda right: right.name)
@torch.no_grad()
def test_right_blocks_recompose(right: Candidate) -> None:
    for size in SIZES:
        block, x = make(right, size), tokens(size)
        batched = x.unflatten(0, (2 - len(x) % 2, -1))
        reference = block_reference(block, right.claim, x).view_as(batched)
        torch.testing.assert_close(block(batched), reference, atol=1e-10, rtol=0)
