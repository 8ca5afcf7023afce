"""Lower precision: master weights and loss in float32, passes in bfloat16; the same cells as before for float32."""

import pytest
import torch

from mue_check import TrainSpec
from mue_check.data import Corpus
from mue_check.errors import SpecError
from mue_check.precision import Precision, require_precision
from mue_check.training import Stack
from tests.training.stacks import make_stack

TRAIN = TrainSpec(steps=30, batch=4, context=16, warmup=3)


def stack(corpus: Corpus, text: str, precision: Precision = "fp32", lrs=(2.0**-7, 2.0**-6), seeds=(0, 1)) -> Stack:
    return make_stack(corpus, text, TRAIN, lrs=lrs, seeds=seeds, precision=precision)


MODELS = ["d=32", "16e2a", "8e4a2g1s,h=16,balance=selection_bias", "16e2a,router=expert_choice", "16e2a,load=zipf:1"]


@pytest.mark.parametrize("text", MODELS)
def test_bfloat16_trains_nearly_as_float32_does(corpus: Corpus, text: str) -> None:
    full, low = stack(corpus, text), stack(corpus, text, "bf16")
    for each in (full, low):
        each.advance(TRAIN.steps)
    assert low.log.dtype is low.state.flat.dtype is low.state.gradient.dtype is torch.float32
    assert not torch.equal(low.log, full.log)
    torch.testing.assert_close(low.log[:5], full.log[:5], rtol=0.02, atol=0.02)
    # rounding sends a token to another expert now and then, and training goes on from there
    torch.testing.assert_close(low.evaluate(), full.evaluate(), rtol=0.05, atol=0.05)


def test_master_weights_keep_what_bfloat16_would_lose(corpus: Corpus) -> None:
    s = stack(corpus, "d=32", "bf16", lrs=(2.0**-20, 2.0**-20))
    before = s.state.flat.clone()
    s.advance(5)
    moved = s.state.flat - before
    assert moved.abs().max() > 0
    assert (before + moved).bfloat16().eq(before.bfloat16()).float().mean() > 0.9


@pytest.mark.parametrize("text", ["d=32", "16e2a"])
def test_a_run_in_a_stack_of_bfloat16_is_the_run_alone(corpus: Corpus, text: str) -> None:
    together, alone = stack(corpus, text, "bf16"), stack(corpus, text, "bf16", lrs=(2.0**-6,), seeds=(1,))
    for each in (together, alone):
        each.advance(5)
    assert torch.equal(together.log[:5, 1], alone.log[:5, 0])


@pytest.mark.parametrize("text", ["16e2a", "16e2a,balance=selection_bias", "16e2a,load=zipf:1"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stack_restarts_with_other_runs_in_the_same_memory(corpus: Corpus, text: str, precision: Precision) -> None:
    used, fresh = (stack(corpus, text, precision, seeds=seeds) for seeds in ((0, 1), (2, 3)))
    places = [buffer.data_ptr() for buffer in used.buffers()]
    used.advance(7)
    assert used.restart(lrs=(2.0**-7, 2.0**-6), seeds=(2, 3)) is used
    assert [buffer.data_ptr() for buffer in used.buffers()] == places
    for each in (used, fresh):
        each.advance(9)
    assert torch.equal(used.log[:9], fresh.log[:9])
    assert torch.equal(used.evaluate(), fresh.evaluate())


@pytest.mark.parametrize(
    ("precision", "device", "says"),
    [("fp16", "cpu", "unknown precision 'fp16' .did you mean 'bf16'.."), ("tf32", "cpu", "on a CPU use fp32")],
)
def test_what_there_is_not(precision: str, device: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        require_precision(precision, device)
    assert require_precision("tf32", "cuda") == "tf32"
