"""Training under a target load: the load in the batches it trains on, and what a pass that only looks leaves behind."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mue_check import TrainSpec
from mue_check.data import Corpus
from mue_check.models.balancing import LayerRouting
from mue_check.training import Stack
from tests.training.stacks import BLIND, STEERED, make_stack

TRAIN = TrainSpec(steps=8, batch=8, context=16, warmup=2)


def build(corpus: Corpus, text: str) -> Stack:
    return make_stack(corpus, text, TRAIN, lrs=(2.0**-7, 2.0**-6))


def state(stack: Stack) -> list[Tensor]:
    return [buffer.clone() for buffer in stack.buffers()]


def watch(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Assignments [L, R, E] of each training batch, as it trains."""
    whole: Callable[..., Tensor] = stack.losses
    seen: list[Tensor] = []

    def losses(*arguments: object, **options: object) -> Tensor:
        layers: list[LayerRouting] = []
        out = whole(*arguments, **options | {"layers": layers})
        seen.append(torch.stack([layer.assignments().sum(1) for layer in layers]))
        return out

    monkeypatch.setattr(stack, "losses", losses)
    return seen


@pytest.mark.parametrize("text", [*STEERED, BLIND])
def test_it_trains_under_the_target_load(corpus: Corpus, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = build(corpus, text)
    seen = watch(stack, monkeypatch)
    stack.advance(TRAIN.steps)
    experts = stack.routers.experts
    assert experts is not None
    wanted = torch.tensor(experts.target_load) * TRAIN.tokens_per_step * experts.activated
    mean = torch.stack(seen[3:]).mean(0)  # the first batches come from no load at all
    allowed = 5 * (wanted / 5).sqrt() if experts.router == "content_blind" else 2 + 0.04 * wanted
    assert ((mean - wanted).abs() <= allowed).all(), mean - wanted


@pytest.mark.parametrize("text", [STEERED[0], STEERED[1]])
def test_a_pass_that_only_looks_leaves_no_trace(corpus: Corpus, text: str) -> None:
    stack = build(corpus, text)
    stack.advance(3)
    before = state(stack)
    tokens = stack.examples.observed()
    loss = stack.evaluate()
    stack.probe(lambda name, value: None, tokens[:, :4])
    loads = [layer.load_RE for layer in stack.routing(tokens)]
    assert torch.equal(stack.evaluate(), loss)
    for buffer, value in zip(stack.buffers(), before, strict=True):
        assert torch.equal(buffer.nan_to_num(7), value.nan_to_num(7))
    experts = stack.routers.experts
    assert experts is not None
    for load_RE in loads:  # a batch that it has not trained on is steered too
        assert (load_RE / torch.tensor(experts.target_load) - 1).abs().max() < 0.2


def test_what_steers_is_part_of_the_state(corpus: Corpus) -> None:
    stack = build(corpus, STEERED[0])
    assert stack.routers.steering is not None
    for buffer in stack.routers.steering.buffers():
        assert any(each is buffer for each in stack.buffers())
    assert stack.routers.bias_LRE is None  # the published rule does not move it too
    assert build(corpus, BLIND).routers.steering is None
    assert build(corpus, "16e2a,h=8,balance=selection_bias").routers.steering is None
    assert build(corpus, "16e2a,h=8").routers.steering is None
    assert build(corpus, "d=32").routers is None


def test_clones_may_be_steered_to_another_load(corpus: Corpus) -> None:
    for text in ("16e2a,h=8", STEERED[0], BLIND):
        routers = build(corpus, text).routers
        assert routers is not None
        other = routers.clones(1, 3, torch.device("cpu"), "zipf:0.5")
        assert other.experts.load == "zipf:0.5"
        assert routers.experts.load != "zipf:0.5"
        assert (other.steering is None) == (other.expected_E is not None) == (text == BLIND)
        if routers.steering is not None:
            assert other.steering is not None
            assert torch.equal(other.steering.bias_LRE[:, 2], routers.steering.bias_LRE[:, 1])
