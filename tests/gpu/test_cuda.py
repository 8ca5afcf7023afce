"""What only a GPU can show: the captured step does what the eager one does."""

from dataclasses import replace

import pytest
import torch

from mue_check import HyperParameters, TrainSpec, get_rule, parse_scenario
from mue_check.data import load_corpus
from mue_check.models.experts import MOST_GROUPS, all_experts, grouped_experts, supports_grouped
from mue_check.models.user_router.loaded import add_router, loaded_router
from mue_check.precision import Precision
from mue_check.routing.content_blind import content_blind, expected_draws, place_keys
from mue_check.routing.factory import Factory, candidate_of
from mue_check.routing.variants import route
from mue_check.spec import DiffusionSpec, Experts
from mue_check.training import Stack, training_step
from mue_check.training.capture import Captured, capture
from mue_check.training.noise import CLONES, gradient_noise
from tests.images import made_up_images
from tests.models import user_routers as users

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

TRAIN = TrainSpec(steps=30, batch=8, context=32, warmup=3)
REFERENCE = parse_scenario(f"d=32,L=2,H=32,B={TRAIN.tokens_per_step},T={TRAIN.steps}")
LRS, SEEDS = [2.0**-9, 2.0**-7, 2.0**-6, 2.0**-7], [0, 0, 0, 1]


def build(text: str, device: str = "cuda", lrs=LRS, seeds=SEEDS, precision: Precision = "fp32") -> Stack:
    target = parse_scenario(text, default=REFERENCE)
    prescription = get_rule("complete_mue").prescribe(REFERENCE, target)
    base = HyperParameters(lr=1.0, init_std=0.1)
    pictures = isinstance(target.model, DiffusionSpec)
    return Stack(
        target.model,
        prescription,
        base,
        replace(TRAIN, context=16) if pictures else TRAIN,
        made_up_images() if pictures else load_corpus("markov"),
        lrs=lrs,
        seeds=seeds,
        device=torch.device(device),
        precision=precision,
    )


ROUTED = [
    "16e4a1s,h=8,router=deepseek_v3",
    "16e4a1s,h=8,router=deepseek_v3,balance=selection_bias",
    "16e2a,router=sigmoid_norm,balance=selection_bias",
    "16e2a,router=softmax_norm,balance=auxiliary_loss",
    "16e2a,router=expert_choice",
    "16e2a,router=content_blind",
]


PICTURES = [
    "d=32,patch=2",
    "16e2a1s,h=8,patch=2,gates=zero",
    "16e4a,h=8,router=content_blind,patch=2,modulation=shared",
]


@pytest.mark.parametrize("text", ["d=32", "d=128,H=128", "16e2a", "8e4a2g1s,h=32", *ROUTED, *PICTURES])
def test_captured_and_eager_logs_agree(text: str) -> None:
    captured, eager = build(text), build(text)
    captured.advance(TRAIN.steps)
    for _ in range(TRAIN.steps):
        training_step(eager)
    assert int(captured.counter) == int(eager.counter) == TRAIN.steps
    torch.testing.assert_close(captured.log, eager.log, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(captured.evaluate(), eager.evaluate(), rtol=1e-4, atol=1e-5)
    if captured.routers is not None and captured.routers.bias_LRE is not None:
        assert captured.routers.bias_LRE.abs().max() > 0
        torch.testing.assert_close(captured.routers.bias_LRE, eager.routers.bias_LRE, rtol=0, atol=2.5e-3)


@pytest.mark.parametrize("text", ["d=32", "16e2a", PICTURES[0]])
def test_the_gpu_trains_as_the_cpu_does(text: str) -> None:
    gpu, cpu = build(text), build(text, device="cpu")
    for stack in (gpu, cpu):
        stack.advance(TRAIN.steps)
    torch.testing.assert_close(gpu.log[:5].cpu(), cpu.log[:5], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(gpu.evaluate().cpu(), cpu.evaluate(), rtol=2e-2, atol=2e-2)


STEERED = [
    "16e2a,load=zipf:1",
    "16e4a2g,h=8,router=softmax_norm,load=zipf:0.5",
    "16e1a,router=switch,load=zipf:0.5",
    "12e2a1s,h=8,router=deepseek_v3,load=zipf:1",
]
BLIND = "16e2a,router=content_blind,load=zipf:1"


@pytest.mark.parametrize("text", [*STEERED, BLIND])
def test_captured_steering_is_the_eager_one(text: str) -> None:
    captured, eager = build(text), build(text)
    captured.advance(TRAIN.steps)
    for _ in range(TRAIN.steps):
        training_step(eager)
    # steering chooses in whole tokens: a last bit may move one to another expert, and training goes on from there
    torch.testing.assert_close(captured.log[:5], eager.log[:5], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(captured.log, eager.log, rtol=2e-2, atol=1e-2)
    experts = captured.routers.experts
    assert experts is not None
    target = torch.tensor(experts.target_load, device="cuda")
    tokens = captured.examples.observed(256)
    for layer in captured.routing(tokens):
        assert ((layer.load_RE - target).abs() < 0.2 * target + 0.01).all()
    if captured.routers.steering is not None:
        assert captured.routers.steering.bias_LRE.abs().max() > 0


def test_blind_routing_draws_the_same_experts_as_on_the_cpu() -> None:
    tokens = torch.randint(0, 16, (2, 32, 32), generator=torch.Generator().manual_seed(0))
    for load in ("", "zipf:1"):
        experts = Experts(total=16, activated=2, hidden=8, router="content_blind", load=load)
        drawn = [
            content_blind(place_keys(t), 3, experts, torch.float32, expected_draws(experts, t.device)).indices
            for t in (tokens, tokens.cuda())
        ]
        assert torch.equal(drawn[0].sort(-1).values, drawn[1].cpu().sort(-1).values)


@pytest.mark.parametrize("text", ["d=32", "16e2a1s", BLIND])
def test_gradient_noise_is_that_of_the_cpu(text: str) -> None:
    found = [gradient_noise(build(text, device=device), 1, 2 * CLONES, seed=3) for device in ("cuda", "cpu")]
    for name, theirs in found[1].scatter.items():
        for form in ("noise", "signal", "adam_noise", "adam_signal"):
            ours, expected = getattr(found[0].scatter[name], form).cpu(), getattr(theirs, form)
            size = theirs.noise.abs().max().item()
            torch.testing.assert_close(ours, expected, rtol=1e-2, atol=1e-3 * size + 1e-12, msg=f"{name} {form}")


@pytest.mark.parametrize("text", ["16e2a", STEERED[0]])
def test_looking_at_the_noise_between_captured_steps_changes_nothing(text: str) -> None:
    looked, undisturbed = build(text), build(text)
    for stack in (looked, undisturbed):
        stack.advance(5)
    before = [tensor.clone() for tensor in looked.buffers()]
    found = gradient_noise(looked, 2, 2 * CLONES, seed=1, load="zipf:0.5")
    for tensor, value in zip(looked.buffers(), before, strict=True):
        torch.testing.assert_close(tensor, value, rtol=0, atol=0, equal_nan=True)
    assert found.tokens_LE is not None
    assert found.tokens_LE.sum(-1).tolist() == pytest.approx([2 * TRAIN.tokens_per_step] * 2)
    assert all(torch.isfinite(each.noise).all() for each in found.scatter.values())
    for stack in (looked, undisturbed):
        stack.advance(5)
    torch.testing.assert_close(looked.log[:10], undisturbed.log[:10], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("text", ["16e2a", "16e2a,balance=selection_bias", *STEERED])
def test_capture_restores_the_state_after_its_warm_up(text: str) -> None:
    stack = build(text)
    before = [tensor.clone() for tensor in stack.buffers()]
    assert isinstance(stack.stepper, Captured)
    for tensor, value in zip(stack.buffers(), before, strict=True):
        torch.testing.assert_close(tensor, value, rtol=0, atol=0, equal_nan=True)


def test_a_nan_run_does_not_touch_its_neighbours() -> None:
    clean, hurt = build("16e2a"), build("16e2a")
    with torch.no_grad():
        hurt.state.parameters["unembedding"][1] = float("nan")
    for stack in (clean, hurt):
        stack.advance(TRAIN.steps)
    assert torch.isnan(hurt.log[:, 1]).all()
    for run in (0, 2, 3):
        torch.testing.assert_close(hurt.log[:, run], clean.log[:, run], rtol=1e-4, atol=1e-5)


class Syncing(users.Sigmoid):
    """Asks the host for a value, which no capture can."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().forward(x / max(1.0, x.abs().max().item() / 1e9))


@pytest.mark.parametrize("factory", [*users.ROUTERS, users.Branching, Syncing], ids=lambda f: f.__name__)
@pytest.mark.parametrize("known", [True, False], ids=["guarded", "caught"])
def test_a_users_router_is_captured_or_trains_step_by_step(
    monkeypatch: pytest.MonkeyPatch, factory: Factory, known: bool
) -> None:
    router = add_router(candidate_of("router", factory, name=f"users:{factory.__name__}")).name
    if not known:  # the guard sees nothing, and the capture itself breaks
        monkeypatch.setattr("mue_check.models.user_router.loaded.UserRouter.capture_trouble", lambda self, shape: "")
    captured, eager = build(f"16e4a1s,h=8,router={router}"), build(f"16e4a1s,h=8,router={router}")
    captured.advance(10)
    for _ in range(10):
        training_step(eager)
    torch.testing.assert_close(captured.log[:10], eager.log[:10], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(captured.evaluate(), eager.evaluate(), rtol=1e-2, atol=1e-2)
    said = "".join(loaded_router(router).new_notices())
    assert ("cannot be captured" in said) == (factory in (users.Branching, Syncing))


def test_random_draws_work_after_a_failed_capture() -> None:
    x = torch.zeros(1, device="cuda")
    with pytest.raises(RuntimeError):
        capture(lambda: x.add_(x.item() if torch.cuda.is_current_stream_capturing() else 1), [x], x.device)
    assert torch.isfinite(torch.randn(2, device="cuda")).all()
    assert torch.cuda.current_stream() == torch.cuda.default_stream()


def test_the_grouped_product_in_bf16() -> None:
    experts = Experts(total=16, activated=4, hidden=32)

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    x, logits, down = leaf(2, 64, 32), leaf(2, 64, 16), leaf(2, 16, 32, 32)
    up, gate = leaf(2, 32, 16, 32), leaf(2, 32, 16, 32)
    if not supports_grouped(x, up):
        pytest.skip("no grouped kernel for bf16 on this device")
    routing = route(logits, experts)
    ours, theirs = (product(x, up, gate, down, routing) for product in (grouped_experts, all_experts))
    difference = (ours - theirs).double().norm() / theirs.double().norm()
    assert difference < 2e-2


def test_many_runs_of_many_experts_in_bf16() -> None:
    """More groups than torch's grouped product takes on CUDA."""
    runs = 1 + MOST_GROUPS // 64
    stack = build("64e2a,h=16", lrs=[2.0**-7] * runs, seeds=list(range(runs)), precision="bf16")
    stack.advance(2)
    assert torch.isfinite(stack.log[:2]).all()


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("text", ["d=32", "16e2a", "64e2a,h=16"])
def test_lower_precisions_train_alike(text: str, precision: Precision) -> None:
    full = build(text)
    full.advance(TRAIN.steps)
    low = build(text, precision=precision)  # a stack sets the products of all that comes after it
    low.advance(TRAIN.steps)
    assert not torch.equal(full.log, low.log)
    torch.testing.assert_close(low.log, full.log, rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("text", ["16e2a", "16e2a,balance=selection_bias", STEERED[0]])
def test_a_captured_stack_trains_other_runs_as_a_new_one_does(text: str) -> None:
    used, fresh = build(text), build(text, lrs=LRS[::-1], seeds=[5, 6, 6, 7])
    used.advance(12)
    used.restart(lrs=LRS[::-1], seeds=[5, 6, 6, 7])
    for stack in (used, fresh):
        stack.advance(12)
    torch.testing.assert_close(used.log, fresh.log, rtol=1e-4, atol=1e-5, equal_nan=True)
