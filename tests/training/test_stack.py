import gc
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor

from mue_check import Role, TrainSpec
from mue_check.data import Corpus
from mue_check.errors import DataError
from mue_check.routing.variants import VARIANTS
from mue_check.training import Stack
from tests.training.stacks import BLIND, STEERED, make_stack, of_run

TRAIN = TrainSpec(steps=8, batch=4, context=16, warmup=2)
LRS, SEEDS = [2.0**-9, 2.0**-5, 2.0**-6], [0, 0, 2]
PICTURES = ["d=48,patch=2", "8e2a1s,h=16,patch=2", "d=32,patch=2,gates=zero,modulation=shared"]
MODELS = ["d=32", "d=48", "16e2a", "4e2a", "8e4a2g1s,h=16", "16e2a,h=64", "64e2a,h=16", *PICTURES]
SCORED = [name for name, variant in VARIANTS.items() if variant.scored]
ROUTED = [
    f"{'16e1a1s' if router == 'switch' else '16e4a1s'},h=8,router={router},balance={balance}"
    for router, balance in [
        *((router, "none") for router in VARIANTS),
        *((router, balance) for router in SCORED for balance in ("auxiliary_loss", "selection_bias")),
    ]
]
EVERY = [*MODELS, *ROUTED, *STEERED, BLIND]


def stack(corpus: Corpus, text: str, lrs=LRS, seeds=SEEDS, train: TrainSpec = TRAIN) -> Stack:
    return make_stack(corpus, text, train, lrs=lrs, seeds=seeds)


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("text", EVERY)
def test_a_run_in_a_stack_is_bit_equal_to_the_run_alone(corpus: Corpus, text: str) -> None:
    together = stack(corpus, text)
    together.advance(TRAIN.steps)
    assert torch.isfinite(together.log).all()
    for run, (lr, seed) in enumerate(zip(LRS, SEEDS, strict=True)):
        alone = stack(corpus, text, [lr], [seed])
        alone.advance(TRAIN.steps)
        assert same(of_run(alone, 0), of_run(together, run)), run


def test_it_learns(corpus: Corpus) -> None:
    s = stack(corpus, "16e2a", [2.0**-6], [0], TrainSpec(steps=80, batch=8, context=16))
    before = s.evaluate()
    s.advance(80)
    assert s.evaluate()[0] < before[0] - 0.3
    assert torch.isfinite(s.log).all()


@pytest.mark.parametrize("text", EVERY)
def test_a_nan_run_does_not_touch_its_neighbours(corpus: Corpus, text: str) -> None:
    clean, hurt = stack(corpus, text), stack(corpus, text)
    with torch.no_grad():
        final = next(p.name for p in hurt.state.declared if p.role is Role.UNEMBEDDING)
        hurt.state.parameters[final][1] = float("nan")
        hurt.state.parameters["block0.attention_qkv"][1] = float("inf")
    for each in (clean, hurt):
        each.advance(TRAIN.steps)
    assert torch.isnan(hurt.log[:, 1]).all()
    assert torch.isnan(hurt.evaluate()[1])
    assert all(same(of_run(hurt, run), of_run(clean, run)) for run in (0, 2))


def test_seeds_share_init_and_data_and_differ_between_them(corpus: Corpus) -> None:
    s = stack(corpus, "d=32", [2.0**-8, 2.0**-6, 2.0**-6], [5, 5, 6])
    first = s.batch()
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    wide = stack(corpus, "d=64,H=64", [2.0**-6], [5])
    assert torch.equal(wide.batch()[0], first[0])
    assert torch.equal(s.state.parameters["unembedding"][0], s.state.parameters["unembedding"][1])


def test_training_in_two_parts_is_training_in_one(corpus: Corpus) -> None:
    one, two = (stack(corpus, "16e2a") for _ in range(2))
    one.advance(8)
    two.advance(3)
    two.advance(5)
    assert torch.equal(one.state.flat, two.state.flat)


def test_a_stack_is_freed_when_it_is_let_go(corpus: Corpus) -> None:
    s = stack(corpus, "d=32")
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
