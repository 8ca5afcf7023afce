"""The task that optima are measured on asks something of every part of the model."""

import pytest
import torch

from mue_check.axes.scale import dense
from mue_check.catalog import get_tier
from mue_check.data import load_corpus
from mue_check.rules import Role, get_rule
from mue_check.spec import Scenario
from mue_check.training import Stack
from tests.data.bigrams import bigram_entropy

MODEL = dense(32, 2)
SEEDS = (0, 1, 2, 3)


def loss(*silent: Role) -> float:
    """Held-out loss of the cpu tier's reference at its base learning rate, with these branches multiplied by 0."""
    torch.set_num_threads(1)
    task = get_tier("cpu").task("markov")
    scenario = Scenario.of(MODEL, task.train)
    prescription = get_rule("complete_mue").prescribe(scenario, scenario)
    for role in silent:
        prescription = prescription.with_factors(role, forward_multiplier=0.0)
    stack = Stack(
        MODEL,
        prescription,
        task.base,
        task.train,
        load_corpus("markov"),
        lrs=[task.base.lr] * len(SEEDS),
        seeds=SEEDS,
        device=torch.device("cpu"),
    )
    stack.advance(task.train.steps)
    return float(stack.evaluate().mean())


def test_every_branch_is_needed() -> None:
    whole = loss()
    assert whole < bigram_entropy(load_corpus("markov")) - 0.08, "the reference sits on the bigram plateau"
    assert loss(Role.FFN_DOWN) > whole + 0.08
    assert loss(Role.ATTENTION_OUT) > whole + 0.08


@pytest.mark.parametrize("regime", ["sharp", "noise"])
def test_base_values_exist_where_a_value_is_swept(regime: str) -> None:
    task = get_tier("cpu").task("markov", regime)
    assert task.can_sweep("lr")
    assert task.can_sweep("weight_decay") == (regime == "noise")
    assert not task.can_sweep("init_std")
