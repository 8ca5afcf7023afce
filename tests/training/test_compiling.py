"""The compiled step is the plain one; with a backend that needs no compiler of its own."""

import pytest
import torch

from mue_check import TrainSpec
from mue_check.data import Corpus
from mue_check.training.compiling import VARIABLE
from tests.training.stacks import make_stack

TRAIN = TrainSpec(steps=6, batch=4, context=16)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_compiled_and_plain_steps_agree(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "16e2a,balance=selection_bias"
    monkeypatch.delenv(VARIABLE, raising=False)
    plain = make_stack(corpus, text, TRAIN, depth=1)
    monkeypatch.setenv(VARIABLE, "aot_eager")
    compiled = make_stack(corpus, text, TRAIN, depth=1)
    for each in (plain, compiled):
        each.advance(TRAIN.steps)
    assert compiled.losses is not compiled.model.losses
    torch.testing.assert_close(compiled.log, plain.log, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compiled.evaluate(), plain.evaluate(), rtol=1e-4, atol=1e-5)
    torch.compiler.reset()
