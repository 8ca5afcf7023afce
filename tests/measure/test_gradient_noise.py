"""The table of gradient noise: what its rows are, and that the same cell gives the same ones."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mue_check import HyperParameters, TrainSpec, parse_scenario
from mue_check.data import Corpus
from mue_check.measure import MEASUREMENTS
from mue_check.measure import gradient_noise as module
from mue_check.measure.gradient_noise import SHARED, measure_gradient_noise
from mue_check.measure.stacks import stack_of
from mue_check.models.parameters import stable_seed
from mue_check.records import Cell
from mue_check.training.noise import CLONES, gradient_noise
from tests.studies import make_cell

TRAIN = TrainSpec(steps=4, batch=2, context=8)
COLUMNS = {
    *("seed", "value", "step", "load", "layer", "kind", "expert", "tokens", "numbers"),
    *("noise", "signal", "adam_noise", "adam_signal"),
}
LRS, SEEDS = (2.0**-7, 2.0**-6), (3, 4)
MIXTURE = "8e2a1s,h=8,load=zipf:0.5"


@pytest.fixture(autouse=True)
def _few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOKENS", 2 * CLONES * TRAIN.tokens_per_step)


def make(corpus: Corpus, text: str, **changes: object) -> Cell:
    model = parse_scenario(f"d=16,L=2,{text},dh=8").model
    toy = {"corpus": "toy", "corpus_fingerprint": corpus.fingerprint, "base": HyperParameters(init_std=0.1)}
    return make_cell(
        model, TRAIN, measurement="gradient_noise", **{**toy, "values": LRS[:1], "seeds": SEEDS, **changes}
    )


def measured(cell: Cell, corpus: Corpus) -> pd.DataFrame:
    return pd.DataFrame(measure_gradient_noise(cell, corpus))


def test_a_row_for_each_expert_and_for_what_is_shared(corpus: Corpus) -> None:
    assert MEASUREMENTS["gradient_noise"].measure is measure_gradient_noise
    cell = make(corpus, MIXTURE, steps=(2, 4), values=LRS)
    rows = measured(cell, corpus)
    assert set(rows.columns) == COLUMNS
    assert not rows.drop(columns=["load"]).isna().to_numpy().any()
    stack, _, _ = stack_of(cell, corpus)
    assert set(rows["kind"]) == {str(p.role) for p in stack.state.declared}
    keys = ["seed", "value", "step", "layer", "kind", "expert"]
    gains = rows["kind"] == "norm_gain"  # two of them a layer
    assert not rows[~gains].duplicated(keys).any()
    assert set(zip(rows["seed"], rows["value"], rows["step"], strict=True)) == {
        (seed, lr, step) for seed in SEEDS for lr in LRS for step in (2, 4)
    }
    one = rows[(rows["seed"] == 3) & (rows["value"] == LRS[0]) & (rows["step"] == 2)]
    # all numbers of the model stand in some row
    assert one["numbers"].sum() == sum(p[0].numel() for p in stack.state.parameters.values())
    experts = one[one["kind"].str.startswith("expert_")]
    assert len(experts) == 2 * 3 * 8
    assert set(experts["expert"]) == set(range(8))
    assert set(experts["numbers"]) == {16 * 8}
    shared = one[one["expert"] == SHARED]
    assert (shared["tokens"] == TRAIN.tokens_per_step).all()
    assert {"shared_up", "router", "attention_qkv"} <= set(shared["kind"])
    assert set(one[one["kind"] == "token_embedding"]["layer"]) == {SHARED}
    assert set(one["layer"]) == {SHARED, 0, 1}
    assert (rows["noise"] >= 0).all()
    assert (rows["adam_noise"] >= 0).all()


def test_tokens_are_the_loads(corpus: Corpus) -> None:
    rows = measured(make(corpus, MIXTURE), corpus)
    experts = rows[rows["kind"].str.startswith("expert_")]
    a_batch = experts.groupby(["seed", "layer", "kind"])["tokens"].sum()
    assert a_batch.tolist() == pytest.approx([2 * TRAIN.tokens_per_step] * len(a_batch))
    by_expert = experts.groupby("expert")["tokens"].mean() / a_batch.mean()
    shares = np.arange(1, 9) ** -0.5
    assert by_expert.to_numpy() == pytest.approx(shares / shares.sum(), abs=0.02)


def test_values_are_those_of_the_run_at_that_step(corpus: Corpus) -> None:
    cell = make(corpus, MIXTURE, steps=(2, 4), values=LRS)
    rows = measured(cell, corpus)
    stack, values, seeds = stack_of(cell, corpus)
    stack.advance(2)
    run = 3
    found = gradient_noise(stack, run, 2 * CLONES, seed=stable_seed(seeds[run], 2))
    mine = (rows["seed"] == seeds[run]) & (rows["value"] == values[run]) & (rows["step"] == 2)
    up = rows[mine & (rows["kind"] == "expert_up") & (rows["layer"] == 1)].sort_values("expert")
    for name in ("noise", "signal", "adam_noise", "adam_signal"):
        assert up[name].tolist() == getattr(found.scatter["block1.expert_up"], name).tolist()


def test_the_end_is_looked_at_where_no_step_is_named(corpus: Corpus) -> None:
    cell = make(corpus, MIXTURE)
    rows = measured(cell, corpus)
    assert set(rows["step"]) == {TRAIN.steps}
    assert set(rows["load"]) == {""}
    pd.testing.assert_frame_equal(rows, measured(replace(cell, steps=(TRAIN.steps,)), corpus))


def test_loads_are_looked_at_beside_each_other(corpus: Corpus) -> None:
    cell = make(corpus, "8e2a,h=8,router=content_blind,load=uniform", loads=("uniform", "zipf:1"))
    rows = measured(cell, corpus)
    assert set(rows["load"]) == {"uniform", "zipf:1"}
    assert (rows.groupby("load").size() == len(rows) / 2).all()
    experts = rows[(rows["kind"] == "expert_up") & (rows["layer"] == 0)]
    busiest = experts[experts["expert"] == 0].groupby("load")["tokens"].mean()
    assert busiest["zipf:1"] > 2 * busiest["uniform"]
    # the weights are the same, and so is what the load of training sees
    alone = measured(replace(cell, loads=()), corpus)
    same = rows[rows["load"] == "uniform"].drop(columns="load").reset_index(drop=True)
    pd.testing.assert_frame_equal(same, alone.drop(columns="load"))


def test_a_dense_model_has_its_feed_forward(corpus: Corpus) -> None:
    rows = measured(make(corpus, "H=16"), corpus)
    assert (rows["expert"] == SHARED).all()
    assert (rows["tokens"] == TRAIN.tokens_per_step).all()
    assert set(rows["kind"]) >= {"ffn_up", "ffn_gate", "ffn_down"}


def test_the_same_cell_gives_the_same_numbers(corpus: Corpus) -> None:
    cell = make(corpus, MIXTURE)
    rows = measured(cell, corpus)
    pd.testing.assert_frame_equal(rows, measured(cell, corpus))
    # a seed has its own batches, whichever other seeds are beside it
    alone = measured(replace(cell, seeds=SEEDS[1:]), corpus)
    beside = rows[rows["seed"] == SEEDS[1]].reset_index(drop=True)
    pd.testing.assert_frame_equal(beside, alone)


def test_a_large_batch_is_measured_twice_a_clone_at_least(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    whole = module.gradient_noise

    def watch(stack, run, batches, **rest):
        asked.append(batches)
        return whole(stack, run, batches, **rest)

    monkeypatch.setattr(module, "gradient_noise", watch)
    for tokens in (1, 5 * CLONES * TRAIN.tokens_per_step + 1):
        monkeypatch.setattr(module, "TOKENS", tokens)
        measured(make(corpus, "H=16", seeds=(3,)), corpus)
    assert asked == [2 * CLONES, 5 * CLONES]


def test_loads_and_scaling_are_part_of_a_cells_content(corpus: Corpus) -> None:
    cell = make(corpus, MIXTURE)
    others = [replace(cell, loads=("uniform",)), replace(cell, load_scaling=0.5), make(corpus, "8e2a1s,h=8")]
    assert len({each.key for each in (cell, *others)}) == 4
