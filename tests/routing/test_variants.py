"""Every router against its definition, one token at a time."""

import math

import pytest
import torch

from mue_check.routing.choice import combine
from mue_check.routing.content_blind import place_keys
from mue_check.routing.factory import SHAPES, builtin_router, fitted
from mue_check.routing.variants import VARIANTS, Variant, route
from mue_check.spec import Experts

R, M = 2, 26
CASES = [
    ("sigmoid_norm", "8e2a"),
    ("sigmoid_norm", "12e3a3g"),
    ("sigmoid_group_norm", "8e2a"),
    ("sigmoid_group_norm", "16e4a2g"),
    ("softmax_norm", "8e3a"),
    ("softmax_norm", "16e4a2g"),
    ("switch", "8e1a"),
    ("deepseek_v3", "8e2a"),
    ("deepseek_v3", "16e4a"),
    ("deepseek_v3", "20e3a"),
    ("deepseek_v3", "16e13a"),
    ("deepseek_v3", "18e4a"),
    ("moge", "8e2a"),
    ("moge", "16e4a4g"),
    ("sigmoid_mean", "8e3a"),
    ("sigmoid_mean", "16e4a2g"),
    ("expert_choice", "8e2a"),
    ("expert_choice", "8e1a"),
    ("expert_choice", "4e4a"),
]
BY_TOKEN = [case for case in CASES if case[0] != "expert_choice"]


def make(router: str, notation: str, balance: str = "none") -> Experts:
    plain = Experts.from_notation(notation, hidden=8)
    return Experts(
        total=plain.total, activated=plain.activated, groups=plain.groups, hidden=8, router=router, balance=balance
    )


def draw(experts: Experts, seed: int = 0) -> torch.Tensor:
    return torch.randn(R, M, experts.total, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def best(values: list[float], among: list[int], count: int) -> list[int]:
    return sorted(among, key=lambda e: -values[e])[:count]


def deepseek_candidates(values: list[float], experts: Experts) -> list[int]:
    n = experts.total
    if n < 16 or n % 4:
        return list(range(n))
    groups = [list(range(g * n // 4, (g + 1) * n // 4)) for g in range(4)]
    ranks = [sum(sorted((values[e] for e in group), reverse=True)[:2]) for group in groups]
    kept = max(2, math.ceil(experts.activated / (n // 4)))
    return [e for g in sorted(range(4), key=lambda g: -ranks[g])[:kept] for e in groups[g]]


def by_hand(logits: torch.Tensor, experts: Experts, bias: torch.Tensor | None = None) -> torch.Tensor:
    """[R, M, E] weights from the definitions, a token (or an expert) at a time."""
    n, a, groups = experts.total, experts.activated, experts.groups
    out = torch.zeros_like(logits)
    for r in range(logits.shape[0]):
        soft = torch.stack([torch.exp(z) / torch.exp(z).sum() for z in logits[r]])
        sigmoid = 1 / (1 + torch.exp(-logits[r]))
        if experts.router == "expert_choice":
            for e in range(n):
                for t in best(soft[:, e].tolist(), list(range(M)), min(M, max(1, -(-M * a // n)))):
                    out[r, t, e] = soft[t, e]
            continue
        scores = soft if experts.router in ("softmax_norm", "switch", "moge") else sigmoid
        for t in range(logits.shape[1]):
            values = (scores[t] + (0 if bias is None else bias[r])).tolist()
            if experts.router == "deepseek_v3":
                sets = [best(values, deepseek_candidates(values, experts), a)]
            else:
                size = n // groups
                sets = [best(values, list(range(g * size, (g + 1) * size)), a // groups) for g in range(groups)]
            active = sum(scores[t, e] for chosen in sets for e in chosen)
            for chosen in sets:
                for e in chosen:
                    divisor = {
                        "sigmoid_norm": active,
                        "softmax_norm": active,
                        "sigmoid_group_norm": sum(scores[t, i] for i in chosen),
                        "deepseek_v3": active / 2.5,
                        "sigmoid_mean": a,
                    }.get(experts.router, 1)
                    out[r, t, e] = scores[t, e] / divisor
    return out


@pytest.mark.parametrize(
    ("router", "notation", "biased"), [*((*case, False) for case in CASES), *((*case, True) for case in BY_TOKEN)]
)
def test_each_router_is_its_definition(router: str, notation: str, biased: bool) -> None:
    experts = make(router, notation)
    bias = 0.3 * draw(experts, seed=9)[:, 0] - 0.5 if biased else None
    results = []
    for compute in (
        lambda x: combine(route(x, experts, bias_RE=bias), M, experts.total),
        lambda x: by_hand(x, experts, bias),
    ):
        logits = draw(experts).requires_grad_()
        weights = compute(logits)
        (weights * draw(experts, seed=1)).sum().backward()
        results.append((weights.detach(), logits.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert results[0][1].abs().max() > 1e-6


def test_every_variant_has_a_definition_here() -> None:
    assert set(VARIANTS) == {name for name, _ in CASES} | {"content_blind"}


@pytest.mark.parametrize(("router", "notation"), [*CASES, ("content_blind", "16e4a2g")])
def test_weights_sum_to_what_the_router_claims_in_a_mixture(router: str, notation: str) -> None:
    experts = make(router, notation)
    tokens = torch.randint(0, 50, (R, 2, M // 2), generator=torch.Generator().manual_seed(0))
    routing = route(draw(experts), experts, place_RM=place_keys(tokens))
    sums = combine(routing, M, experts.total).sum(-1)
    if experts.claimed_sum is not None:
        torch.testing.assert_close(sums, torch.full_like(sums, experts.claimed_sum))
    elif notation == "4e4a":  # every expert takes every token: the whole softmax
        torch.testing.assert_close(sums, torch.ones_like(sums))
    else:
        assert sums.std() > 1e-3


@pytest.mark.parametrize("variant", [v for v in VARIANTS.values() if not v.by_place], ids=lambda v: v.name)
def test_a_mixture_and_conformance_claim_the_same(variant: Variant) -> None:
    """At the sizes that conformance checks, a mixture of the same groups makes the claim that is checked."""
    claim = builtin_router(variant.name).routing_spec  # type: ignore[attr-defined]
    shapes = {fitted(shape, claim) for shape in SHAPES}
    assert len(shapes) > 1
    for shape in shapes:
        groups = claim.groups if variant.grouped else 1
        experts = Experts(total=shape.experts, activated=shape.activated, hidden=8, groups=groups, router=variant.name)
        assert experts.claim == claim
        assert experts.claimed_sum == (None if claim.kind == "expert_choice" else claim.expected_sum())


@pytest.mark.parametrize(("router", "notation"), BY_TOKEN)
def test_a_bias_moves_the_selection_and_never_the_weights(router: str, notation: str) -> None:
    experts = make(router, notation)
    logits, bias = draw(experts), torch.zeros(R, experts.total, dtype=torch.float64)
    plain = route(logits, experts, bias_RE=None)
    for shift in (0.0, -3.0, 7.0):  # the same for all: nothing moves
        shifted = route(logits, experts, bias_RE=bias + shift)
        for expected, found in zip(vars(plain).values(), vars(shifted).values(), strict=True):
            torch.testing.assert_close(found, expected)
    bias[0, 5] = 100
    moved = combine(route(logits, experts, bias_RE=bias), M, experts.total)
    before = combine(plain, M, experts.total)
    assert (moved[0, :, 5] > 0).all()
    assert torch.equal(moved[1], before[1])
    if experts.claimed_sum is None:  # without normalization a weight is a score
        both = (moved > 0) & (before > 0)
        torch.testing.assert_close(moved[both], before[both])
    assert moved.max() <= 2.5
    torch.testing.assert_close(moved, by_hand(logits, experts, bias))


def test_a_bias_has_no_gradient() -> None:
    experts = make("sigmoid_mean", "8e2a")
    bias = torch.zeros(R, 8, dtype=torch.float64, requires_grad=True)
    route(draw(experts).requires_grad_(), experts, bias_RE=bias).weights.sum().backward()
    assert bias.grad is None


def test_softmax_norm_is_finite_where_all_that_a_bias_selects_are_zero() -> None:
    experts = make("softmax_norm", "4e2a")
    logits = torch.tensor([[[200.0, 0, 1, -200]]])
    routing = route(logits, experts, bias_RE=torch.tensor([[-9.0, 0, 1, 0]]))
    torch.testing.assert_close(routing.weights.sum(-1), torch.ones(1, 1))
    assert 0 not in routing.indices
