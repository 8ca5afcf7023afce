"""The load of scored routing under steering: batch by batch, for every router, and nothing else moves."""

from dataclasses import replace

import pytest
import torch

from mue_check.models.load_steering import LoadSteering
from mue_check.routing.choice import TokenChoice, assignments
from mue_check.routing.variants import DEEPSEEK_SCALE, VARIANTS, normalized, route, scores
from mue_check.spec import Experts

R, M, CPU = 2, 1024, torch.device("cpu")
STEERED = [
    ("sigmoid_norm", "16e2a"),
    ("sigmoid_norm", "16e4a2g"),
    ("sigmoid_group_norm", "16e4a4g"),
    ("softmax_norm", "16e2a"),
    ("softmax_norm", "16e4a2g"),
    ("switch", "16e1a"),
    ("deepseek_v3", "12e2a1s"),  # below 16 experts no group is left out
    ("deepseek_v3", "8e2a"),
    ("moge", "16e2a2g"),
    ("moge", "8e2a"),
    ("sigmoid_mean", "16e2a"),
]


def make(router: str, notation: str, load: str = "zipf:1") -> Experts:
    plain = Experts.from_notation(notation, hidden=8)
    return replace(plain, router=router, balance="selection_bias", load=load)


def batches(experts: Experts, count: int, scale: float = 1.0) -> list[torch.Tensor]:
    """Logits with favourites of their own, which drift as training makes them drift."""
    generator = torch.Generator().manual_seed(0)
    favour = torch.randn(R, 1, experts.total, generator=generator) / 2
    drift = torch.randn(R, 1, experts.total, generator=generator) / 20
    return [(torch.randn(R, M, experts.total, generator=generator) + favour + i * drift) * scale for i in range(count)]


def met(logits: torch.Tensor, experts: Experts, bias: torch.Tensor) -> torch.Tensor:
    return assignments(route(logits, experts, bias_RE=bias), M, experts.total).sum(1)


def new(experts: Experts, runs: int = R) -> LoadSteering:
    return LoadSteering(experts, depth=2, runs=runs, device=CPU)


def test_every_scored_router_is_steered() -> None:
    assert {router for router, _ in STEERED} == {name for name, variant in VARIANTS.items() if variant.scored}


@pytest.mark.parametrize(("load", "scale"), [("zipf:0", 1.0), ("zipf:0.5", 0.3), ("zipf:1", 1.0)])
@pytest.mark.parametrize(("router", "notation"), STEERED)
def test_every_batch_has_the_target_load(router: str, notation: str, scale: float, load: str) -> None:
    experts = make(router, notation, load)
    steering = new(experts)
    wanted = torch.tensor(experts.target_load) * M * experts.activated
    total = torch.zeros(R, experts.total)
    for i, logits in enumerate(batches(experts, 8, scale)):
        found = met(logits, experts, steering.solve(1, logits))
        assert (found.sum(-1) == M * experts.activated).all()
        if i >= 2:  # a far target is reached from one batch to the next
            total += found
            # a few tokens of a batch in all, and a few percent of what an expert shall have
            assert ((found - wanted).abs() <= 4 + 0.03 * wanted).all(), (i, found - wanted)
    assert (total / 6 / wanted - 1).abs().max() < 0.02
    assert not steering.bias_LRE[0].any()  # another layer's


def test_without_steering_the_load_is_another() -> None:
    experts = make("sigmoid_norm", "16e2a")
    logits = batches(experts, 1)[0]
    plain = met(logits, experts, torch.zeros(R, 16))
    assert (plain / (torch.tensor(experts.target_load) * M * 2) - 1).abs().max() > 0.5


def test_what_a_batch_cannot_give_the_next_is_asked_for() -> None:
    """16 tokens and shares that are no whole number of them: the mean over many batches has the share all the same."""
    experts = make("sigmoid_norm", "8e2a", "9/7/5/3/3/2/2/1")
    steering, total = new(experts), torch.zeros(R, 8)
    generator = torch.Generator().manual_seed(1)
    for _ in range(200):
        logits = torch.randn(R, 16, 8, generator=generator)
        bias = steering.solve(0, logits)
        total += assignments(route(logits, experts, bias_RE=bias), 16, 8).sum(1)
        assert (steering.owed_LRE[0].abs() <= 1).all()
    torch.testing.assert_close(total / 200 / 32, torch.tensor(experts.target_load).expand(R, -1), rtol=0.02, atol=0)


@pytest.mark.parametrize(("router", "notation"), STEERED)
def test_weights_never_see_the_bias(router: str, notation: str) -> None:
    experts = make(router, notation)
    logits = batches(experts, 1)[0].requires_grad_()
    bias = new(experts).solve(0, logits)
    assert bias.abs().max() > 0.01
    assert not bias.requires_grad
    routing = route(logits, experts, bias_RE=bias)
    assert isinstance(routing, TokenChoice)
    raw = scores(logits, router).gather(-1, routing.indices)
    by_group = raw.view(R, M, experts.groups, -1)
    expected = {
        "sigmoid_norm": normalized(raw),
        "softmax_norm": normalized(raw),
        "sigmoid_group_norm": normalized(by_group).flatten(-2),
        "deepseek_v3": normalized(raw) * DEEPSEEK_SCALE,
        "sigmoid_mean": raw / experts.activated,
    }.get(router, raw)
    torch.testing.assert_close(routing.weights, expected)


def test_a_copy_leaves_no_trace() -> None:
    experts = make("sigmoid_norm", "16e2a")
    steering = new(experts)
    first, second = batches(experts, 2)
    steering.solve(0, first)
    before = [buffer.clone() for buffer in steering.buffers()]
    copy = steering.copy()
    on_copy = copy.solve(0, second)
    for buffer, value in zip(steering.buffers(), before, strict=True):
        assert torch.equal(buffer, value)
    assert not torch.equal(copy.bias_LRE, steering.bias_LRE)
    assert torch.equal(steering.solve(0, second), on_copy)


def test_the_bias_that_is_handed_out_does_not_move_later() -> None:
    experts = make("sigmoid_norm", "16e2a")
    steering = new(experts)
    first, second = batches(experts, 2)
    bias = steering.solve(0, first)
    kept = bias.clone()
    steering.solve(0, second)
    assert torch.equal(bias, kept)


def test_runs_begin_where_another_steering_ended() -> None:
    experts = make("sigmoid_norm", "16e2a")
    steering, clones = new(experts), new(experts, runs=4)
    steering.solve(0, batches(experts, 1)[0])
    clones.begin_at(steering, 1)
    for run in range(4):
        assert torch.equal(clones.bias_LRE[:, run], steering.bias_LRE[:, 1])
    assert not clones.owed_LRE.any()  # what that run's batches still owe is no business of these


@pytest.mark.parametrize(("router", "notation"), STEERED)
def test_a_run_is_steered_as_if_alone(router: str, notation: str) -> None:
    experts = make(router, notation)
    together, hurt = new(experts), new(experts)
    alone = [new(experts, runs=1) for _ in range(R)]
    for logits in batches(experts, 3):
        found = together.solve(0, logits)
        for run in range(R):
            assert torch.equal(alone[run].solve(0, logits[run : run + 1])[0], found[run])
        broken = logits.clone()
        broken[1] = float("nan")
        assert torch.equal(hurt.solve(0, broken)[0], found[0])
    assert torch.equal(hurt.owed_LRE[:, 0], together.owed_LRE[:, 0])
