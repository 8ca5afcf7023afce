"""The causal probe: how much of the step each expert takes, and that nothing else takes another."""

import pytest
import torch

from mue_check import HyperParameters, TrainSpec
from mue_check.data import Corpus
from mue_check.training import Stack
from mue_check.training.load_scaling import EXPERT_AXIS, update_factors
from tests.training.stacks import make_stack

TRAIN = TrainSpec(steps=8, batch=4, context=8, warmup=2)
LOADED = ["8e2a1s,h=8,load=zipf:1", "8e4a2g,h=8,router=content_blind,load=zipf:0.5", "4e1a,h=8,load=5/1/1/1"]


def build(corpus: Corpus, text: str, strength: float = 0.0) -> Stack:
    base = HyperParameters(lr=1.0, init_std=0.1, weight_decay=0.5)
    return make_stack(corpus, f"{text},dh=8", TRAIN, width=16, base=base, load_scaling=strength)


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("text", LOADED)
def test_an_experts_update_is_scaled_with_its_load(corpus: Corpus, text: str, strength: float) -> None:
    plain, scaled = build(corpus, text), build(corpus, text, strength)
    plain.advance(3)
    with torch.no_grad():
        for ours, theirs in zip(scaled.buffers(), plain.buffers(), strict=True):
            ours.copy_(theirs)
    before = {name: value.detach().double().clone() for name, value in plain.state.parameters.items()}
    for stack in (plain, scaled):
        stack.advance(1)
    experts = plain.routers.experts
    assert experts is not None
    factors = (torch.tensor(experts.target_load, dtype=torch.float64) * experts.total) ** (strength / 2)
    assert factors.max() > 1.1
    for p in plain.state.declared:
        ours, theirs = (stack.state.parameters[p.name].detach() for stack in (scaled, plain))
        if p.role not in EXPERT_AXIS:
            assert torch.equal(ours, theirs), p.name
            continue
        updates = [(each.double() - before[p.name]).movedim(EXPERT_AXIS[p.role] + 1, 0) for each in (ours, theirs)]
        for expert, factor in enumerate(factors):
            torch.testing.assert_close(updates[0][expert], factor * updates[1][expert], rtol=1e-4, atol=5e-8)
        assert updates[1].abs().max() > 1e-4


@pytest.mark.parametrize("text", LOADED)
def test_decay_is_scaled_too(corpus: Corpus, text: str) -> None:
    plain, scaled = (build(corpus, text, strength).optimizer for strength in (0.0, 1.0))
    # both through the same factors: their ratio, the decay, is what it was
    torch.testing.assert_close(scaled.lr_times_decay / scaled.lr, plain.lr_times_decay / plain.lr)
    assert not torch.equal(scaled.lr, plain.lr)


@pytest.mark.parametrize(("text", "strength"), [(LOADED[0], 0.0), ("8e2a,h=8,load=uniform", 1.0)])
def test_no_strength_and_no_unevenness_change_nothing(corpus: Corpus, text: str, strength: float) -> None:
    plain, scaled = build(corpus, text), build(corpus, text, strength)
    for stack in (plain, scaled):
        stack.advance(TRAIN.steps)
    for ours, theirs in zip(scaled.buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("text", ["d=16", "8e2a,h=8", "8e2a,h=8,balance=selection_bias"])
def test_without_a_load_there_is_nothing_to_scale_by(corpus: Corpus, text: str) -> None:
    with pytest.raises(ValueError, match="load_scaling needs experts with a target load"):
        build(corpus, text, 0.5)


def test_factors_are_one_where_no_routed_expert_is(corpus: Corpus) -> None:
    state = build(corpus, LOADED[0]).state
    load = (0.5, 0.25, *(0.25 / 6,) * 6)
    for name, value in state.named(update_factors(state, load, 1.0)).items():
        expected = torch.ones_like(value)
        for expert, share in enumerate(load):
            if name.endswith(("expert_up", "expert_gate")):
                expected[:, :, expert] = (share * 8) ** 0.5
            if name.endswith("expert_down"):
                expected[:, expert] = (share * 8) ** 0.5
        torch.testing.assert_close(value, expected)
