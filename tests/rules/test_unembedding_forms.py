"""The two forms of the unembedding train alike, and half of one with half of the other does not."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mue_check import Dense, HyperParameters, ModelSpec, Prescription, Role, Scenario, TrainSpec, get_rule
from mue_check.data import Corpus
from mue_check.training import Stack

TRAIN = TrainSpec(steps=20, batch=4, context=16, warmup=2)
# eps and decay large enough to be felt in twenty steps: at 1e-8 a wrong factor on eps would pass
BASE = HyperParameters(lr=1.0, init_std=0.1, weight_decay=2.0, eps=1e-3)
LRS, SEEDS = [2.0**-6, 2.0**-5], [0, 1]
REFERENCE = Scenario.of(ModelSpec(width=32, depth=2, feed_forward=Dense(hidden=32)), TRAIN)
TARGET = Scenario.of(ModelSpec(width=64, depth=2, feed_forward=Dense(hidden=64)), TRAIN)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def log(prescription: Prescription) -> Tensor:
    """[steps, R]: training losses on a small source that repeats each token."""
    tokens = np.random.default_rng(0).integers(0, 16, 3000).astype(np.uint16)
    tokens[1::2] = tokens[::2]
    corpus = Corpus(name="toy", train=tokens[:2500], heldout=tokens[2500:], vocab=16)
    stack = Stack(TARGET.model, prescription, BASE, TRAIN, corpus, lrs=LRS, seeds=SEEDS, device=torch.device("cpu"))
    stack.advance(TRAIN.steps)
    return stack.log


@pytest.fixture(scope="module")
def forms(_one_thread: None) -> dict[str, Prescription]:
    return {name: get_rule(name).prescribe(REFERENCE, TARGET) for name in ("complete_mue", "complete_mue_cdp")}


@pytest.fixture(scope="module")
def losses(forms: dict[str, Prescription]) -> Tensor:
    return log(forms["complete_mue"])


def test_both_forms_train_alike(forms: dict[str, Prescription], losses: Tensor) -> None:
    assert losses[-1].mean() < losses[0].mean() - 0.2  # it learned something, so agreement says something
    torch.testing.assert_close(log(forms["complete_mue_cdp"]), losses, rtol=0, atol=1e-4)


def mix(forms: dict[str, Prescription], form: str, *names: str) -> Prescription:
    """``form`` with these factors of its unembedding taken from the other form."""
    (other,) = set(forms) - {form}
    taken = {name: getattr(forms[other][Role.UNEMBEDDING], name) for name in names}
    return forms[form].with_factors(Role.UNEMBEDDING, **taken)


@pytest.mark.parametrize("form", ["complete_mue", "complete_mue_cdp"])
def test_halves_of_two_forms_do_not_train_alike(forms: dict[str, Prescription], losses: Tensor, form: str) -> None:
    assert (log(mix(forms, form, "init_std", "lr")) - losses).abs().max() > 0.02


@pytest.mark.parametrize("name", ["init_std", "lr", "weight_decay", "eps", "forward_multiplier"])
@pytest.mark.parametrize("form", ["complete_mue", "complete_mue_cdp"])
def test_every_single_factor_is_needed(forms: dict[str, Prescription], losses: Tensor, form: str, name: str) -> None:
    assert (log(mix(forms, form, name)) - losses).abs().max() > 2e-3
