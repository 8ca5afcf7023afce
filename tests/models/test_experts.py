import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mue_check.models import experts as experts_module
from mue_check.models.blocked_experts import blocked_experts, make_blocks
from mue_check.models.experts import (
    MOST_GROUPS,
    all_experts,
    choose_product,
    expert_product,
    grouped_experts,
    supports_grouped,
    taken_tokens,
)
from mue_check.models.routed_experts import routed_experts
from mue_check.routing.choice import TokenChoice
from mue_check.routing.variants import route
from mue_check.spec import Experts

R, M, D, H = 3, 24, 16, 8


def case(experts: Experts, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(1)

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()

    n = experts.total
    return {
        "x": leaf(R, M, D),
        "logits": leaf(R, M, n),
        "up": leaf(R, D, n, H),
        "gate": leaf(R, D, n, H),
        "down": leaf(R, n, H, D),
    }


def run(product, experts: Experts, tensors):
    x, logits, up, gate, down = tensors.values()
    out = product(x, up, gate, down, route(logits, experts))
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    gradients = {name: t.grad.clone() for name, t in tensors.items()}
    for t in tensors.values():
        t.grad = None
    return out.detach(), gradients


def by_hand(x, up, gate, down, routing: TokenChoice):
    """One token and one expert at a time, from the definition."""
    out = torch.zeros_like(x)
    for r in range(x.shape[0]):
        for t in range(x.shape[1]):
            for weight, e in zip(routing.weights[r, t], routing.indices[r, t].tolist(), strict=True):
                h = torch.nn.functional.silu(x[r, t] @ gate[r, :, e]) * (x[r, t] @ up[r, :, e])
                out[r, t] += weight * (h @ down[r, e])
    return out


SHAPES = ["1e1a", "4e1a", "8e2a", "8e8a", "12e3a3g", "16e4a2g"]


@pytest.mark.parametrize("notation", SHAPES)
@pytest.mark.parametrize("product", [all_experts, blocked_experts, expert_product])
def test_both_ways_are_the_definition(notation: str, product) -> None:
    experts = Experts.from_notation(notation, hidden=H)
    x, logits, up, gate, down = case(experts, torch.float64).values()
    routing = route(logits, experts)
    torch.testing.assert_close(product(x, up, gate, down, routing), by_hand(x, up, gate, down, routing))


@pytest.mark.parametrize("notation", SHAPES)
@pytest.mark.parametrize(
    ("product", "dtype", "tolerance"),
    [
        (blocked_experts, torch.float64, 1e-12),
        (blocked_experts, torch.float32, 1e-4),
        (grouped_experts, torch.float32, 1e-4),
    ],
)
def test_both_ways_agree_forward_and_backward(notation: str, product, dtype: torch.dtype, tolerance: float) -> None:
    experts = Experts.from_notation(notation, hidden=H)
    tensors = case(experts, dtype)
    (ours, gradients), (theirs, others) = (run(p, experts, tensors) for p in (all_experts, product))
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, others[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
        # one expert has weight 1 whatever its logit
        assert gradient.abs().max() > 0 or (notation, name) == ("1e1a", "logits"), name


@pytest.mark.parametrize(("width", "hidden"), [(32, 2), (16, 3), (6, 4), (5, 7)])
def test_widths_that_the_grouped_kernel_refuses(width: int, hidden: int) -> None:
    """Its rows must be whole 16 bytes; other widths go another way and give the same."""
    experts = Experts(total=8, activated=2, hidden=hidden)
    x, logits = torch.randn(2, 10, width), torch.randn(2, 10, 8)
    up, gate = torch.randn(2, width, 8, hidden), torch.randn(2, width, 8, hidden)
    down = torch.randn(2, 8, hidden, width)
    routing = route(logits, experts)
    expected = all_experts(x, up, gate, down, routing)
    for product in (blocked_experts, expert_product):
        torch.testing.assert_close(product(x, up, gate, down, routing), expected, rtol=1e-4, atol=1e-4)


def test_an_expert_that_nobody_chose_has_gradient_zero() -> None:
    experts = Experts(total=4, activated=1, hidden=H)
    tensors = case(experts, torch.float32)
    with torch.no_grad():
        tensors["logits"][..., 2] = -50
    for product in (all_experts, blocked_experts, grouped_experts):
        _, gradients = run(product, experts, tensors)
        assert gradients["down"][:, 2].abs().max() == 0
        assert gradients["up"][:, :, 2].abs().max() == 0
        assert gradients["down"][:, 0].abs().max() > 0


@pytest.mark.parametrize("notation", ["4e1a", "8e3a", "8e8a"])
def test_what_experts_take_is_the_masked_product(notation: str) -> None:
    """Forward and backward; all_experts knows expert choice as a matrix of weights alone."""
    experts = replace(Experts.from_notation(notation, hidden=H), router="expert_choice")
    tensors = case(experts, torch.float64)
    (ours, gradients), (theirs, others) = (run(p, experts, tensors) for p in (taken_tokens, all_experts))
    torch.testing.assert_close(ours, theirs)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name])
        assert gradient.abs().max() > 0, name
    routing = route(tensors["logits"], experts)
    x, _, up, gate, down = tensors.values()
    assert torch.equal(expert_product(x, up, gate, down, routing), ours)


def test_a_token_that_no_expert_takes_gets_nothing() -> None:
    experts = Experts(total=4, activated=1, hidden=H, router="expert_choice")
    x, _, up, gate, down = case(experts, torch.float64).values()
    logits = torch.zeros(R, M, 4, dtype=torch.float64)
    logits[:, 6:12, 0] = logits[:, 6:12, 1] = logits[:, 12:18, 2] = logits[:, 18:, 3] = 5
    out = expert_product(x, up, gate, down, route(logits, experts))
    assert out[:, :6].abs().max() == 0
    assert (out[:, 6:].abs().amax(-1) > 0).all()


@pytest.mark.parametrize("skew", [0.0, 3.0, 50.0], ids=["even", "uneven", "all to one"])
@pytest.mark.parametrize(("tokens", "notation"), [(64, "8e2a"), (96, "16e4a"), (40, "64e2a"), (5, "4e1a")])
def test_every_assignment_has_a_row_of_its_own_among_the_blocks(tokens: int, notation: str, skew: float) -> None:
    experts = Experts.from_notation(notation, hidden=H)
    logits = torch.randn(3, tokens, experts.total) + skew * torch.arange(experts.total)
    indices = route(logits, experts).indices
    blocks = make_blocks(indices, experts.total)
    rows = blocks.row_NK.flatten()
    assert len(set(rows.tolist())) == rows.numel()
    assert torch.equal(blocks.token_S[rows], torch.arange(3 * tokens).repeat_interleave(experts.activated))
    group = torch.cat([torch.arange(3 * experts.total), blocks.group_X])[rows // blocks.size]
    run = torch.arange(3).view(-1, 1, 1)
    assert torch.equal(group, (indices + run * experts.total).flatten())
    # an empty row shows a token of the same run
    owner = torch.cat([torch.arange(3 * experts.total), blocks.group_X]) // experts.total
    assert torch.equal(blocks.token_S // tokens, owner.repeat_interleave(blocks.size))


@pytest.mark.parametrize(("runs", "total", "grouped"), [(32, 16, True), (MOST_GROUPS, 1, True), (64, 16, False)])
def test_cuda_has_no_grouped_product_of_many_groups(
    monkeypatch: pytest.MonkeyPatch, runs: int, total: int, grouped: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with FakeTensorMode():
        rows = torch.empty(runs, 8, 32, dtype=torch.bfloat16, device="cuda")
        weights = torch.empty(runs, 32, total, 16, dtype=torch.bfloat16, device="cuda")
    assert supports_grouped(rows, weights) is grouped


MEASURED = json.loads((Path(__file__).parents[2] / "reports/bench/h100/expert_product.json").read_text())["rows"]


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: "-".join(str(row[k]) for k in ("precision", *"RMDNah")))
def test_the_choice_on_cuda_is_the_fastest_product_measured(monkeypatch: pytest.MonkeyPatch, row) -> None:
    """Or at most 15 % slower than it."""
    monkeypatch.setattr(
        experts_module, "uses_kernel", lambda name, x, fastest: fastest and row.get("kernels_ms") is not None
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    runs, tokens, width, total, active, hidden = (row[key] for key in "RMDNah")
    dtype = torch.bfloat16 if row["precision"] == "bf16" else torch.float32
    with FakeTensorMode():
        x = torch.empty(runs, tokens, width, dtype=dtype, device="cuda")
        up = torch.empty(runs, width, total, hidden, dtype=dtype, device="cuda")
        routing = TokenChoice(*(torch.empty(runs, tokens, active, dtype=d, device="cuda") for d in (dtype, torch.long)))
    names = {all_experts: "all_ms", grouped_experts: "grouped_ms", blocked_experts: "blocked_ms"}
    names[routed_experts] = "kernels_ms"
    taken = row[names[choose_product(x, up, routing)]]
    assert taken <= 1.15 * min(row[name] for name in names.values() if row.get(name) is not None)
