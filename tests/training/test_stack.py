import gc
import weakref

import numpy as np
import pytest
import torch

from mue_check import Dense, HyperParameters, ModelSpec, Role, Scenario, TrainSpec, get_rule, parse_scenario
from mue_check.data import Corpus
from mue_check.errors import DataError
from mue_check.spec import DiffusionSpec
from mue_check.training import Stack
from tests.images import made_up_images

TRAIN = TrainSpec(steps=12, batch=4, context=16, warmup=2)
BASE = HyperParameters(lr=1.0, init_std=0.1, weight_decay=0.1)
REFERENCE = ModelSpec(width=32, depth=2, feed_forward=Dense(hidden=32))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    tokens = np.random.default_rng(0).integers(0, 16, 6000).astype(np.uint16)
    tokens[1::2] = tokens[::2]  # something to learn
    return Corpus(name="toy", train=tokens[:5000], heldout=tokens[5000:], vocab=16)


def stack(corpus: Corpus, text: str, lrs, seeds, train: TrainSpec = TRAIN) -> Stack:
    scenario = Scenario.of(REFERENCE, train)
    target = parse_scenario(text, default=scenario)
    prescription = get_rule("complete_mue").prescribe(scenario, target)
    data = made_up_images() if isinstance(target.model, DiffusionSpec) else corpus
    return Stack(target.model, prescription, BASE, train, data, lrs=lrs, seeds=seeds, device=torch.device("cpu"))


LRS, SEEDS = [2.0**-9, 2.0**-7, 2.0**-5, 2.0**-6], [0, 0, 1, 2]
PICTURES = ["d=48,patch=2", "8e2a1s,h=16,patch=2", "d=32,patch=2,gates=zero,modulation=shared"]
MODELS = ["d=32", "d=48", "16e2a", "4e2a", "8e4a2g1s,h=16", "16e2a,h=64", "64e2a,h=16", *PICTURES]


@pytest.mark.parametrize("text", MODELS)
def test_a_run_in_a_stack_is_bit_equal_to_the_run_alone(corpus: Corpus, text: str) -> None:
    together = stack(corpus, text, LRS, SEEDS)
    together.advance(TRAIN.steps)
    for i, (lr, seed) in enumerate(zip(LRS, SEEDS, strict=True)):
        alone = stack(corpus, text, [lr], [seed])
        alone.advance(TRAIN.steps)
        assert torch.equal(alone.log[:, 0], together.log[:, i]), (text, i)
        assert alone.evaluate()[0] == together.evaluate()[i]
        for name, value in alone.state.parameters.items():
            assert torch.equal(value[0], together.state.parameters[name][i]), name


def test_it_learns(corpus: Corpus) -> None:
    s = stack(corpus, "16e2a", [2.0**-6], [0], TrainSpec(steps=80, batch=8, context=16))
    before = s.evaluate()
    s.advance(80)
    assert s.evaluate()[0] < before[0] - 0.3
    assert torch.isfinite(s.log).all()


@pytest.mark.parametrize("text", ["d=32", "16e2a", "4e2a", PICTURES[0]])
def test_a_nan_run_does_not_touch_its_neighbours(corpus: Corpus, text: str) -> None:
    clean = stack(corpus, text, LRS, SEEDS)
    clean.advance(TRAIN.steps)
    hurt = stack(corpus, text, LRS, SEEDS)
    with torch.no_grad():
        final = next(p.name for p in hurt.state.declared if p.role is Role.UNEMBEDDING)
        hurt.state.parameters[final][1] = float("nan")
        hurt.state.parameters["block0.attention_qkv"][1] = float("inf")
    hurt.advance(TRAIN.steps)
    assert torch.isnan(hurt.log[:, 1]).all()
    assert torch.isnan(hurt.evaluate()[1])
    for i in (0, 2, 3):
        assert torch.equal(hurt.log[:, i], clean.log[:, i])


def test_seeds_share_init_and_data_and_differ_between_them(corpus: Corpus) -> None:
    s = stack(corpus, "d=32", [2.0**-8, 2.0**-6, 2.0**-6], [5, 5, 6])
    first = s.batch()
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    wide = stack(corpus, "d=64,H=64", [2.0**-6], [5])
    assert torch.equal(wide.batch()[0], first[0])
    assert torch.equal(s.state.parameters["unembedding"][0], s.state.parameters["unembedding"][1])


def test_training_in_two_parts_is_training_in_one(corpus: Corpus) -> None:
    one, two = (stack(corpus, "16e2a", LRS, SEEDS) for _ in range(2))
    one.advance(12)
    two.advance(5)
    two.advance(7)
    assert torch.equal(one.state.flat, two.state.flat)


def test_a_stack_is_freed_when_it_is_let_go(corpus: Corpus) -> None:
    s = stack(corpus, "d=32", LRS, SEEDS)
    s.advance(2)
    buffer = weakref.ref(s.state.flat)
    gc.disable()
    try:
        del s
        assert buffer() is None
    finally:
        gc.enable()


def test_held_out_and_training_parts_do_not_meet(corpus: Corpus) -> None:
    windows = corpus.heldout_windows(16)
    assert windows.shape[1] == 17
    assert len(np.unique(windows, axis=0)) == len(windows)


def test_a_corpus_too_short_for_the_context_is_refused(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="needs at least"):
        stack(corpus, "d=32", [0.01], [0], TrainSpec(steps=2, batch=2, context=400))


def test_one_learning_rate_per_seed(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match=r"2 .* for 1 seeds"):
        stack(corpus, "d=32", [0.01, 0.02], [0])
