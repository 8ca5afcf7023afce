"""Gradient noise: estimates of what is known, and each number against a loop that takes one batch at a time."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from mue_check import Role, TrainSpec
from mue_check.data import Corpus
from mue_check.models.balancing import LayerRouting
from mue_check.models.parameters import stable_seed
from mue_check.training import Stack
from mue_check.training.load_scaling import EXPERT_AXIS
from mue_check.training.noise import CLONES, Scatter, _preconditioner, estimate, gradient_noise
from tests.training.stacks import LRS, SEEDS, make_stack

TRAIN = TrainSpec(steps=6, batch=2, context=8, warmup=1)
FORMS = ("noise", "signal", "adam_noise", "adam_signal")


def build(corpus: Corpus, text: str, lrs: Sequence[float] = LRS, seeds: Sequence[int] = SEEDS) -> Stack:
    return make_stack(corpus, text, TRAIN, width=16, lrs=lrs, seeds=seeds)


def gradients(seed: int, batches: int, trace: float, signal: float) -> Tensor:
    """[batches, D] of mean square ``signal`` and variance ``trace``, unevenly spread over entries."""
    rng = np.random.default_rng(seed)
    spread = np.exp(rng.normal(size=2000))
    spread *= trace / spread.sum()
    mean = rng.normal(size=2000)
    mean *= math.sqrt(signal) / np.linalg.norm(mean)
    return torch.from_numpy(mean + rng.normal(size=(batches, 2000)) * np.sqrt(spread))


def estimated(found: Tensor) -> tuple[float, float]:
    noise, signal = estimate(found.mean(0).square().sum(), found.square().sum(), len(found))
    return float(noise), float(signal)


@pytest.mark.parametrize("ratio", [0.1, 1.0, 10.0])
def test_a_known_noise_and_signal_are_found(ratio: float) -> None:
    noise, signal = estimated(gradients(1, 256, trace=ratio * 3.0, signal=3.0))
    assert noise == pytest.approx(ratio * 3.0, rel=0.03)
    assert signal == pytest.approx(3.0, rel=0.03)


def test_the_noise_is_the_sample_variance() -> None:
    found = gradients(2, 32, trace=5.0, signal=1.0)
    noise, signal = estimated(found)
    assert noise == pytest.approx(float(found.var(0, unbiased=True).sum()))
    assert signal == pytest.approx(float(found.mean(0).square().sum()) - noise / 32)


@pytest.mark.parametrize("signal", [0.0, 0.3])
def test_both_are_unbiased_where_noise_drowns_the_signal(signal: float) -> None:
    """200 small samples: about half of the signals are negative where there is none, and their mean is right."""
    found = [estimated(gradients(100 + i, 16, trace=100.0, signal=signal)) for i in range(200)]
    noise, signals = (np.array(values) for values in zip(*found, strict=True))
    error = signals.std(ddof=1) / math.sqrt(len(signals))
    assert abs(signals.mean() - signal) < 3 * error
    assert noise.mean() == pytest.approx(100.0, rel=0.01)
    if signal == 0:
        assert 0.3 < (signals < 0).mean() < 0.7
        # |mean|^2 alone is 100 / 16 too high
        assert error < 0.05 * 100 / 16


def starts(stack: Stack, batches: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(stable_seed(seed, "noise"))
    last = len(stack.examples.tokens) - stack.train.context
    drawn = [torch.randint(0, last, (CLONES, stack.train.batch), generator=generator) for _ in range(batches // CLONES)]
    return list(torch.cat(drawn))


def by_hand(stack: Stack, run: int, batches: int, seed: int) -> tuple[dict[str, Scatter], Tensor | None]:
    """One batch after the other, one model at a time, each expert's block cut out by its index."""
    weights = {name: value.detach()[run : run + 1].clone() for name, value in stack.state.parameters.items()}
    done = int(stack.counter)
    found: dict[str, list[Tensor]] = {p.name: [] for p in stack.state.declared}
    met = []
    for start in starts(stack, batches, seed):
        tokens = torch.stack([stack.examples.tokens[s : s + stack.train.context + 1] for s in start.tolist()])[None]
        leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
        layers: list[LayerRouting] = []
        routers = None if stack.routers is None else stack.routers.clones(run, 1, stack.device)
        stack.model.losses(leaves, tokens, routers=routers, layers=layers).sum().backward()
        for name, gradients in found.items():
            gradient = leaves[name].grad
            gradients.append((torch.zeros_like(weights[name]) if gradient is None else gradient)[0].double())
        if layers:
            met.append(torch.stack([layer.assignments().sum(1)[0] for layer in layers]))
    out = {}
    second = stack.state.named(stack.state.second)
    for p in stack.state.declared:
        eps = stack.state.named(stack.optimizer.eps)[p.name][run].double()
        corrected = second[p.name][run].double() / (1 - stack.optimizer.beta2**done) if done else None
        divisor = torch.ones(p.shape).double() if corrected is None else corrected.sqrt() + eps
        axis = EXPERT_AXIS.get(p.role)
        values: dict[str, list[float]] = {name: [] for name in FORMS}
        for expert in range(1 if axis is None else p.shape[axis]):
            for adam in (False, True):
                each = torch.stack([(g / divisor if adam else g) for g in found[p.name]])
                each = each.flatten(1) if axis is None else each.select(axis + 1, expert).flatten(1)
                noise = float(each.var(0, unbiased=True).sum())
                values["adam_noise" if adam else "noise"].append(noise)
                signal = float(each.mean(0).square().sum()) - noise / batches
                values["adam_signal" if adam else "signal"].append(signal)
        out[p.name] = Scatter(**{name: torch.tensor(v, dtype=torch.float64) for name, v in values.items()})
    return out, torch.stack(met).mean(0) if met else None


MODELS = [
    "d=16",
    "8e2a1s,h=8",
    "8e4a2g,h=8,router=moge",
    "8e2a,h=8,router=content_blind,load=zipf:0.5",
    "8e2a,h=8,balance=selection_bias",
    "8e2a,h=8,balance=auxiliary_loss",
]


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("text", MODELS)
def test_it_is_what_one_batch_at_a_time_gives(corpus: Corpus, text: str, steps: int) -> None:
    stack = build(corpus, f"{text},dh=8")
    stack.advance(steps)
    found = gradient_noise(stack, 1, 2 * CLONES, seed=5)
    expected, tokens = by_hand(stack, 1, 2 * CLONES, seed=5)
    assert set(found.scatter) == set(expected)
    for name, theirs in expected.items():
        ours = found.scatter[name]
        for form in FORMS:
            size = getattr(theirs, form.replace("signal", "noise")).abs().max().item()
            torch.testing.assert_close(
                getattr(ours, form), getattr(theirs, form), rtol=1e-3, atol=1e-5 * size + 1e-12, msg=f"{name} {form}"
            )
    if tokens is None:
        assert found.tokens_LE is None
    else:
        torch.testing.assert_close(found.tokens_LE, tokens)


def test_the_adam_form_is_what_the_next_step_would_divide_by(corpus: Corpus) -> None:
    """Feed AdamW the gradient again and again with its moments held: the update over the rate is the weighed one."""
    stack = build(corpus, "8e2a,h=8,dh=8")
    stack.advance(4)
    state = stack.state
    second, counter, before = state.second.clone(), stack.counter - 1, state.flat.clone()
    # a gradient whose square is v leaves v as it is, and m = g
    state.gradient.copy_(second.sqrt())
    state.first.copy_(second.sqrt())
    stack.optimizer.lr_times_decay.zero_()
    with torch.no_grad():
        stack.optimizer.step(counter)
    multiplier, bias1, _ = stack.optimizer.table[3]
    update = (before - state.flat) / (stack.optimizer.lr * multiplier * bias1)
    state.second.copy_(second)
    for run in range(2):
        for name, weight in _preconditioner(stack, run).items():
            expected = state.named(second.sqrt())[name][run] * weight
            torch.testing.assert_close(state.named(update)[name][run], expected, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("text", ["8e2a,h=8,load=zipf:0.5", "8e2a,h=8,router=content_blind", "8e2a,h=8", "d=16"])
def test_the_stack_stays_as_it_is(corpus: Corpus, text: str) -> None:
    stack = build(corpus, f"{text},dh=8")
    stack.advance(3)
    before = [buffer.clone() for buffer in stack.buffers()]
    flags = {name: value.requires_grad for name, value in stack.state.leaves.items()}
    gradient_noise(stack, 0, CLONES, seed=1, load="zipf:0.25" if "e" in text else "")
    for buffer, value in zip(stack.buffers(), before, strict=True):
        assert torch.equal(buffer.nan_to_num(7), value.nan_to_num(7))
    assert {name: value.requires_grad for name, value in stack.state.leaves.items()} == flags
    # and it trains on as if nobody had looked
    undisturbed = build(corpus, f"{text},dh=8")
    undisturbed.advance(TRAIN.steps)
    stack.advance(TRAIN.steps - 3)
    assert torch.equal(stack.log, undisturbed.log)


@pytest.mark.parametrize(
    "text", ["8e2a1s,h=8", "8e2a,h=8,load=zipf:0.5", "8e2a,h=8,router=content_blind,load=zipf:0.5"]
)
def test_a_tokens_are_shared_out_among_the_experts(corpus: Corpus, text: str) -> None:
    stack = build(corpus, f"{text},dh=8")
    stack.advance(2)
    tokens = gradient_noise(stack, 0, 4 * CLONES, seed=1).tokens_LE
    assert tokens is not None
    assert tokens.sum(-1).tolist() == pytest.approx([2 * TRAIN.tokens_per_step] * 2)


@pytest.mark.parametrize("text", ["8e2a,h=8,load=uniform", "8e2a,h=8", "8e2a,h=8,router=content_blind,load=uniform"])
def test_a_load_switches_the_routing_of_the_batches_alone(corpus: Corpus, text: str) -> None:
    stack = build(corpus, f"{text},dh=8")
    stack.advance(TRAIN.steps)
    plain, switched = (gradient_noise(stack, 1, 16 * CLONES, seed=1, load=load) for load in ("", "zipf:1"))
    assert plain.tokens_LE is not None
    assert switched.tokens_LE is not None
    share = switched.tokens_LE / switched.tokens_LE.sum(-1, keepdim=True)
    wanted = stack.routers.clones(0, 1, stack.device, "zipf:1").experts
    assert wanted is not None
    torch.testing.assert_close(share, torch.tensor(wanted.target_load).expand(2, -1), rtol=0.1, atol=0.005)
    assert not torch.allclose(plain.tokens_LE, switched.tokens_LE, rtol=0.1)
    # a rare expert's gradient is that of fewer tokens
    rare = switched.scatter["block0.expert_up"]
    assert rare.noise[7] < rare.noise[0]


def test_noise_does_not_depend_on_the_runs_beside_it(corpus: Corpus) -> None:
    together = build(corpus, "8e2a,h=8,dh=8,load=zipf:0.5")
    alone = build(corpus, "8e2a,h=8,dh=8,load=zipf:0.5", LRS[1:], SEEDS[1:])
    for stack in (together, alone):
        stack.advance(3)
    ours, theirs = gradient_noise(together, 1, CLONES, seed=2), gradient_noise(alone, 0, CLONES, seed=2)
    for name, scatter in ours.scatter.items():
        for form in FORMS:
            assert torch.equal(getattr(scatter, form), getattr(theirs.scatter[name], form)), name
    other = gradient_noise(together, 1, CLONES, seed=3)
    assert not torch.equal(other.scatter["unembedding"].noise, ours.scatter["unembedding"].noise)


def test_what_gets_no_gradient_has_neither_noise_nor_signal(corpus: Corpus) -> None:
    found = gradient_noise(build(corpus, "8e2a,h=8,dh=8,router=content_blind"), 0, CLONES, seed=1)
    router = found.scatter["block0.router"]
    assert router.noise.tolist() == router.signal.tolist() == router.adam_noise.tolist() == [0.0]


@pytest.mark.parametrize("batches", [0, 1, CLONES - 1, CLONES + 1])
def test_batches_are_a_multiple_of_the_clones(corpus: Corpus, batches: int) -> None:
    with pytest.raises(ValueError, match=f"{batches} batches: must be a multiple of {CLONES}"):
        gradient_noise(build(corpus, "d=16,dh=8"), 0, batches, seed=1)


def test_every_expert_matrix_has_its_axis(corpus: Corpus) -> None:
    stack = build(corpus, "8e2a1s,h=4,dh=8")
    for p in stack.state.declared:
        assert (p.role in EXPERT_AXIS) == p.role.startswith("expert_")
        if p.role in EXPERT_AXIS:
            assert p.shape[EXPERT_AXIS[p.role]] == 8
    assert set(EXPERT_AXIS) == {Role.EXPERT_UP, Role.EXPERT_GATE, Role.EXPERT_DOWN}
