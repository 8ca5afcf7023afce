"""The task that optima are measured on asks something of every part of the model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mue_check.axes.scale import dense
from mue_check.catalog import get_tier
from mue_check.data import load_corpus
from mue_check.rules import Role, get_rule
from mue_check.spec import Scenario
from mue_check.study.folder import Study
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


def test_groups_tuned_one_by_one() -> None:
    """Each trains at its own value, except where it is the one that is swept: then the sweep begins there."""
    tier = get_tier("cpu")
    task = tier.task("markov")
    tuned = replace(task, tuned={"lr:attention": 4 * task.base.lr, "multiplier:unembedding": 0.5})
    tier = replace(tier, tasks={**tier.tasks, ("markov", "sharp"): tuned})
    study = Study(
        root=Path(), tier=tier, corpus="markov", rule=get_rule("complete_mue"), tolerance=0.5, command="pytest"
    )
    ladder = tier.ladder("width")
    assert ladder is not None
    plain = study.prescription(ladder, ladder.reference)
    swept = study.arm(ladder, ladder.reference, knob="lr:attention").prescription
    both = study.arm(ladder, ladder.reference).prescription
    assert both[Role.ATTENTION_QKV].lr == 4 * plain[Role.ATTENTION_QKV].lr
    assert swept[Role.ATTENTION_QKV].lr == plain[Role.ATTENTION_QKV].lr
    for each in (both, swept):
        assert each[Role.UNEMBEDDING].lr == 0.5 * plain[Role.UNEMBEDDING].lr
        assert each[Role.FFN_UP].lr == plain[Role.FFN_UP].lr
    assert tuned.log2_start("lr:attention") == task.log2_start("lr") + 2
