"""The compiled step is the plain one; with a backend that needs no compiler of its own."""

import pytest
import torch

from mue_check import HyperParameters, TrainSpec, get_rule, parse_scenario
from mue_check.data import Corpus
from mue_check.training import Stack
from mue_check.training.compiling import VARIABLE

TRAIN = TrainSpec(steps=6, batch=4, context=16)
REFERENCE = parse_scenario(f"d=32,L=1,H=32,B={TRAIN.tokens_per_step},T={TRAIN.steps}")


def stack(corpus: Corpus, text: str) -> Stack:
    target = parse_scenario(text, default=REFERENCE)
    prescription = get_rule("complete_mue").prescribe(REFERENCE, target)
    base = HyperParameters(lr=1.0, init_std=0.1)
    device = torch.device("cpu")
    return Stack(target.model, prescription, base, TRAIN, corpus, lrs=[2.0**-7, 2.0**-6], seeds=[0, 1], device=device)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_compiled_and_plain_steps_agree(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "16e2a,balance=selection_bias"
    monkeypatch.delenv(VARIABLE, raising=False)
    plain = stack(corpus, text)
    monkeypatch.setenv(VARIABLE, "aot_eager")
    compiled = stack(corpus, text)
    for each in (plain, compiled):
        each.advance(TRAIN.steps)
    assert compiled.losses is not compiled.model.losses
    torch.testing.assert_close(compiled.log, plain.log, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compiled.evaluate(), plain.evaluate(), rtol=1e-4, atol=1e-5)
    torch.compiler.reset()
