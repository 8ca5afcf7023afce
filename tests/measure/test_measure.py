import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mue_check import Experts, HyperParameters, ModelSpec, Scenario, TrainSpec, get_rule
from mue_check.data import Corpus
from mue_check.judge.audit import judge_audit
from mue_check.judge.load import judge_load
from mue_check.judge.verdict import Verdict
from mue_check.measure.coordinates import measure_coordinates
from mue_check.measure.losses import measure_early_curve, measure_learning_curve, measure_loss_grid
from mue_check.measure.optimizer import measure_optimizer
from mue_check.measure.routing import measure_routing
from mue_check.measure.stacks import stack_of
from mue_check.records import Cell
from mue_check.rules import knob_factors
from mue_check.rules.knob import GROUPS
from tests.studies import make_cell

MODEL = ModelSpec(width=32, depth=2, feed_forward=Experts(total=8, activated=2, hidden=16))
TRAIN = TrainSpec(steps=6, batch=2, context=16)
LRS, SEEDS = (2.0**-8, 2.0**-6), (3, 4)


@pytest.fixture
def cell(corpus: Corpus) -> Cell:
    found = {"corpus": "toy", "corpus_fingerprint": corpus.fingerprint, "values": LRS, "seeds": SEEDS}
    return make_cell(MODEL, TRAIN, base=HyperParameters(init_std=0.1), **found)


def test_the_grid_crosses_learning_rates_and_seeds(cell: Cell, corpus: Corpus) -> None:
    rows = pd.DataFrame(measure_loss_grid(cell, corpus))
    assert list(zip(rows["seed"], rows["value"], strict=True)) == [(s, lr) for s in SEEDS for lr in LRS]
    stack, _, _ = stack_of(cell, corpus)
    stack.advance(TRAIN.steps)
    assert rows["loss"].tolist() == stack.evaluate().tolist()
    # before any update a seed's loss does not depend on its learning rate, and is that of a guess
    assert (rows.groupby("seed")["initial"].nunique() == 1).all()
    assert rows["initial"].mean() == pytest.approx(math.log(16), abs=0.3)


def test_coordinates_change_from_nothing(cell: Cell, corpus: Corpus) -> None:
    rows = pd.DataFrame(measure_coordinates(replace(cell, steps=(0, 1, 3)), corpus))
    assert sorted(rows["step"].unique()) == [0, 1, 3]
    assert (rows[rows["step"] == 0]["change"] == 0).all()
    assert (rows["rms"] > 0).all()
    logits = rows[rows["coordinate"] == "logits"].pivot(index=["seed", "value"], columns="step", values="change")
    assert (logits[1] > 0).all()
    by_lr = logits[1].unstack("value")
    assert (by_lr[LRS[1]] > by_lr[LRS[0]]).all()
    assert {"block0.attention_branch", "block1.ffn_branch", "block0.router_logits"} <= set(rows["coordinate"])


def test_coordinates_are_the_models_own(cell: Cell, corpus: Corpus) -> None:
    rows = pd.DataFrame(measure_coordinates(replace(cell, steps=(0,)), corpus))
    stack, _, _ = stack_of(cell, corpus)
    tokens = torch.from_numpy(corpus.heldout_windows(16)[:16, :-1])
    with torch.no_grad():
        logits = stack.model.forward(stack.state.parameters, tokens.expand(4, -1, -1))
    expected = logits.double().square().mean((1, 2)).sqrt()
    assert rows[rows["coordinate"] == "logits"]["rms"].tolist() == pytest.approx(expected.tolist())


def test_the_early_curve_is_the_log(cell: Cell, corpus: Corpus) -> None:
    rows = pd.DataFrame(measure_early_curve(replace(cell, values=LRS[:1], steps=(4,)), corpus))
    assert len(rows) == 2 * 4
    stack, _, _ = stack_of(replace(cell, values=LRS[:1]), corpus)
    stack.advance(4)
    assert np.array_equal(rows["loss"].to_numpy().reshape(2, 4), stack.log[:4].T.double().numpy())


def test_weights_are_measured_by_role(cell: Cell, corpus: Corpus) -> None:
    rows = pd.DataFrame(measure_coordinates(replace(cell, steps=(0, 1)), corpus))
    up = rows[(rows["coordinate"] == "weight.expert_up") & (rows["step"] == 0)]
    std = next(r.init_std for r in cell.prescription.values(cell.base) if r.role == "expert_up")
    assert up["rms"].tolist() == pytest.approx([std] * 4, rel=0.05)
    gains = rows[(rows["coordinate"] == "weight.norm_gain") & (rows["step"] == 1)].set_index(["seed", "value"])
    for (_, lr), change in gains["change"].items():  # Adam's first step is the learning rate, less eps
        assert change == pytest.approx(lr, rel=0.02)


@pytest.mark.parametrize(
    ("knob", "values"), [("weight_decay", (0.0, 3.0)), ("init_std", (0.05, 0.2))], ids=["weight_decay", "init_std"]
)
def test_a_swept_value_is_the_base_value_of_its_run(cell: Cell, corpus: Corpus, knob, values) -> None:
    rows = pd.DataFrame(measure_loss_grid(replace(cell, knob=knob, values=values), corpus))
    assert rows.groupby("seed")["loss"].nunique().tolist() == [2, 2]
    for value in values:
        alone = replace(cell, base=replace(cell.base, **{knob: value}), values=(cell.base.lr,))
        expected = pd.DataFrame(measure_loss_grid(alone, corpus))
        ours = rows[rows["value"] == value]
        assert ours["loss"].tolist() == pytest.approx(expected["loss"].tolist(), rel=1e-5)
        assert ours["initial"].tolist() == pytest.approx(expected["initial"].tolist(), rel=1e-6)


def test_the_knob_of_a_group_changes_that_group_alone(cell: Cell, corpus: Corpus) -> None:
    for knob, value in (("lr:feed_forward", 0.03), ("init_std:attention", 0.2), ("multiplier:unembedding", 4.0)):
        swept = pd.DataFrame(measure_loss_grid(replace(cell, knob=knob, values=(value,)), corpus))
        changed = cell.prescription.times(knob_factors(knob, value, cell.base))
        alone = replace(cell, prescription=changed, values=(cell.base.lr,))
        expected = pd.DataFrame(measure_loss_grid(alone, corpus))
        assert swept["loss"].tolist() == pytest.approx(expected["loss"].tolist(), rel=1e-5)
        assert swept["initial"].tolist() == pytest.approx(expected["initial"].tolist(), rel=1e-6)


def test_the_knob_of_a_group_reaches_the_optimizer(cell: Cell, corpus: Corpus) -> None:
    one = replace(cell, knob="lr:feed_forward", values=(4 * cell.base.lr,), seeds=(1,))
    found = pd.DataFrame(measure_optimizer(one, corpus))
    by_role = {row.role: row.lr for row in cell.prescription.values(cell.base)}
    ratios = {row["role"]: row["lr"] / by_role[row["role"]] for row in found.to_dict("records")}
    expected = {role: 4.0 if role in GROUPS["feed_forward"] else 1.0 for role in ratios}
    assert ratios == pytest.approx(expected, rel=5e-3)


def test_the_optimizer_is_measured_by_what_it_does(cell: Cell, corpus: Corpus) -> None:
    base = HyperParameters(lr=0.003, weight_decay=0.2, init_std=0.1, eps=1e-7, beta1=0.8, beta2=0.97)
    found = pd.DataFrame(measure_optimizer(replace(cell, base=base, values=(0.003,), seeds=(1,)), corpus))
    expected = {row.role: row for row in cell.prescription.values(base)}
    assert set(found["role"]) <= set(expected)
    for row in found.to_dict("records"):
        for name in ("lr", "weight_decay", "eps", "beta1", "beta2"):
            assert row[name] == pytest.approx(getattr(expected[row["role"]], name), rel=5e-3), (row, name)
    assert judge_audit(found, list(expected.values())).verdict is Verdict.PASS
    wrong = [replace(row, eps=row.eps * 2) if row.role == "router" else row for row in expected.values()]
    offences = judge_audit(found, wrong).offences
    assert {(o.role, o.value) for o in offences} == {("router", "eps")}
    assert "block0.router (router): eps 1e-07, prescribed 2e-07, 0.5 times" in str(offences[0])


def test_a_scheduler_that_overwrites_groups(cell: Cell, corpus: Corpus) -> None:
    small = ModelSpec(width=16, depth=1, feed_forward=Experts(total=4, activated=2, hidden=16))
    prescription = get_rule("complete_mue").prescribe(Scenario.of(small, TRAIN), Scenario.of(MODEL, TRAIN))
    flawed = replace(cell, prescription=prescription, flaw="scheduler_overwrites_groups", steps=(0, 1, 2))
    rows, right = (
        pd.DataFrame(measure_coordinates(c, corpus)).set_index(["step", "coordinate", "seed", "value"])["change"]
        for c in (flawed, replace(flawed, flaw=""))
    )
    assert rows[1].equals(right[1])  # the first step is as prescribed
    hidden = (rows - right)[2]["weight.expert_up"]
    assert (hidden > 0).all()
    audited = pd.DataFrame(measure_optimizer(flawed, corpus))
    assert audited["lr"].tolist() == pytest.approx([LRS[0]] * len(audited), rel=1e-3)


def test_a_learning_curve_ends_where_the_grid_does(cell: Cell, corpus: Corpus) -> None:
    rows = pd.DataFrame(measure_learning_curve(replace(cell, steps=(1, 3, 6)), corpus))
    assert rows["step"].tolist() == [1] * 4 + [3] * 4 + [6] * 4
    grid = pd.DataFrame(measure_loss_grid(cell, corpus))
    assert rows[rows["step"] == 6]["loss"].tolist() == grid["loss"].tolist()


def test_routing_is_measured_after_the_training(cell: Cell, corpus: Corpus) -> None:
    rows = pd.DataFrame(measure_routing(replace(cell, values=LRS[:1]), corpus))
    assert len(rows) == len(SEEDS) * MODEL.depth * 8
    assert rows.groupby(["seed", "layer"])["load"].sum().tolist() == pytest.approx([1.0] * 4)
    for column in ("weight_sum", "weight_sum_low", "weight_sum_high"):
        assert rows[column].tolist() == pytest.approx([1.0] * len(rows))
    assert judge_load(rows, 1.0).verdict is Verdict.PASS
    assert judge_load(rows, 1.02).verdict is Verdict.FAIL
    assert (rows["variance_factor"] >= 1 - 1e-6).all()
    found = judge_load(rows)
    by_hand = rows.groupby(["seed", "layer"])["load"].max().groupby("seed").mean() * 8
    assert found.imbalance.mean == pytest.approx(by_hand.mean())
