"""Routers and balances in training: what learns, and what balancing does to load."""

import pytest
import torch

from mue_check import TrainSpec, parse_scenario
from mue_check.data import Corpus
from mue_check.models import balancing, routers
from mue_check.routing.variants import VARIANTS
from mue_check.training import Stack
from tests.training.stacks import make_stack

TRAIN = TrainSpec(steps=5, batch=4, context=16, warmup=2)


def stack(corpus: Corpus, text: str, train: TrainSpec = TRAIN) -> Stack:
    return make_stack(corpus, text, train)


def text_of(router: str, balance: str = "none") -> str:
    return f"{'16e1a1s' if router == 'switch' else '16e4a1s'},h=8,router={router},balance={balance}"


@pytest.mark.parametrize("router", VARIANTS)
def test_the_router_learns_unless_it_is_blind(corpus: Corpus, router: str) -> None:
    s = stack(corpus, text_of(router))
    s.advance(1)
    for layer in range(2):
        gradient = s.state.parameters[f"block{layer}.router"].grad
        assert gradient is not None
        assert gradient.untyped_storage().data_ptr() == s.state.gradient.untyped_storage().data_ptr()
        assert (gradient.abs().max() == 0) == (router == "content_blind")
        experts = s.state.parameters[f"block{layer}.expert_up"].grad
        assert experts is not None
        assert experts.abs().max() > 0


@pytest.mark.parametrize("router", ["sigmoid_norm", "switch"])
def test_the_auxiliary_loss_reaches_the_router_and_not_the_log(corpus: Corpus, router: str) -> None:
    plain, balanced = (stack(corpus, text_of(router, balance)) for balance in ("none", "auxiliary_loss"))
    for s in (plain, balanced):
        s.advance(1)
    assert torch.equal(plain.log[0], balanced.log[0])
    gradients = [s.state.parameters["block1.router"].grad for s in (plain, balanced)]
    assert gradients[0] is not None
    assert gradients[1] is not None
    extra = gradients[1] - gradients[0]
    # the coefficient is 0.01, and its gradient the auxiliary loss's own
    s = stack(corpus, text_of(router, "auxiliary_loss"))
    layers: list[balancing.LayerRouting] = []
    s.model.losses(s.state.parameters, s.batch(), layers=layers)
    auxiliary = balancing.auxiliary_loss(layers, router).sum()
    (expected,) = torch.autograd.grad(auxiliary, s.state.parameters["block1.router"])
    torch.testing.assert_close(extra, 0.01 * expected, rtol=1e-2, atol=1e-6)
    assert expected.abs().max() > 1e-4


def skewed(corpus: Corpus, balance: str, train: TrainSpec) -> tuple[Stack, float, float]:
    """A stack whose routers begin with two favourites: the largest load over the mean, before and after training."""
    s = stack(corpus, f"16e4a,h=8,balance={balance}", train=train)
    tokens = s.examples.observed()
    with torch.no_grad():
        for layer in range(2):
            s.state.parameters[f"block{layer}.router"][..., 2] += 0.3 * s.state.parameters["token_embedding"].mean(1)

    def crowding() -> float:
        return max(float(layer.load_RE.max()) * 16 for layer in s.routing(tokens))

    before = crowding()
    s.advance(train.steps)
    return s, before, crowding()


def test_balancing_lowers_the_highest_load_in_training(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """With coefficients that show within a short training."""
    monkeypatch.setattr(balancing, "BIAS_STEP", 0.01)
    monkeypatch.setattr(routers, "AUXILIARY_COEFFICIENT", 1.0)
    train = TrainSpec(steps=60, batch=4, context=16)
    after = {balance: skewed(corpus, balance, train)[2] for balance in ("none", "auxiliary_loss", "selection_bias")}
    assert after["selection_bias"] < 0.8 * after["none"], after
    assert after["auxiliary_loss"] < 0.8 * after["none"], after


def test_the_selection_bias_moves_by_its_step_and_is_used_everywhere(corpus: Corpus) -> None:
    s = stack(corpus, text_of("deepseek_v3", "selection_bias"))
    bias = s.routers.bias_LRE
    assert bias is not None
    assert bias.shape == (2, 2, 16)
    assert any(buffer is bias for buffer in s.buffers())
    s.advance(1)
    torch.testing.assert_close(bias.abs().max(), torch.tensor(balancing.BIAS_STEP))
    s.advance(4)
    assert bias.abs().max() <= 5.001 * balancing.BIAS_STEP
    before = s.evaluate()
    tokens = s.examples.observed()
    seen: list[torch.Tensor] = []
    s.probe(lambda name, value: seen.append(value.clone()) if name == "logits" else None, tokens[:, :4])
    loads = [layer.load_RE for layer in s.routing(tokens)]
    bias[:, 0, 5] = 50
    s.probe(lambda name, value: seen.append(value.clone()) if name == "logits" else None, tokens[:, :4])
    assert s.evaluate()[0] != before[0]
    assert s.evaluate()[1] == before[1]
    assert not torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[0][1], seen[1][1])
    for old, new in zip(loads, s.routing(tokens), strict=True):
        assert new.load_RE[0, 5].item() == pytest.approx(0.25)  # one of the four of every token
        assert torch.equal(new.load_RE[1], old[1])


@pytest.mark.parametrize("router", VARIANTS)
def test_statistics_of_a_trained_stack(corpus: Corpus, router: str) -> None:
    s = stack(corpus, text_of(router))
    s.advance(2)
    tokens = s.examples.observed()
    layers = s.routing(tokens)
    assert len(layers) == 2
    activated = 1 if router == "switch" else 4
    claim = parse_scenario(text_of(router), default=parse_scenario("d=32,L=2,H=32")).model.feed_forward.claimed_sum
    for layer in layers:
        torch.testing.assert_close(layer.load_RE.sum(-1), torch.ones(2))
        if claim:  # before R A, which differ from 1 here
            torch.testing.assert_close(layer.weight_sum_R, torch.full((2,), claim))
        assert (layer.variance_factor_R >= 1 - 1e-5).all()
        assert router == "expert_choice" or (layer.variance_factor_R <= activated).all()
        assert not layer.weight_sum_R.requires_grad
        if router == "expert_choice":
            torch.testing.assert_close(layer.load_RE, torch.full((2, 16), 1 / 16))
        if router in ("content_blind", "switch"):
            torch.testing.assert_close(layer.variance_factor_R, torch.ones(2))


def test_a_dense_stack_routes_nothing(corpus: Corpus) -> None:
    s = stack(corpus, "d=32")
    assert s.routing(s.examples.observed()) == []
    assert s.routers is None
