import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mue_check import Experts, HyperParameters, ModelSpec, Scenario, TrainSpec, get_rule
from mue_check.data import Corpus
from mue_check.judge.early import compare_early
from mue_check.measure.coordinates import measure_coordinates
from mue_check.measure.early_curve import measure_early_curve
from mue_check.measure.loss_grid import measure_loss_grid
from mue_check.measure.stacking import stack_of
from mue_check.records import Cell

MODEL = ModelSpec(width=32, depth=2, feed_forward=Experts(total=8, activated=2, hidden=16))
TRAIN = TrainSpec(steps=6, batch=2, context=16)
LRS, SEEDS = (2.0**-8, 2.0**-6), (3, 4)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    tokens = np.random.default_rng(0).integers(0, 16, 5000).astype(np.uint16)
    return Corpus(name="toy", train=tokens[:4000], heldout=tokens[4000:], vocab=16)


@pytest.fixture
def cell(corpus: Corpus) -> Cell:
    scenario = Scenario.of(MODEL, TRAIN)
    return Cell(
        measurement="loss_grid",
        model=MODEL,
        prescription=get_rule("complete_mue").prescribe(scenario, scenario),
        base=HyperParameters(init_std=0.1),
        train=TRAIN,
        corpus="toy",
        corpus_fingerprint=corpus.fingerprint,
        lrs=LRS,
        seeds=SEEDS,
    )


def test_the_grid_crosses_learning_rates_and_seeds(cell: Cell, corpus: Corpus) -> None:
    rows = pd.DataFrame(measure_loss_grid(cell, corpus))
    assert list(zip(rows["seed"], rows["lr"], strict=True)) == [(s, lr) for s in SEEDS for lr in LRS]
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
    logits = rows[rows["coordinate"] == "logits"].pivot(index=["seed", "lr"], columns="step", values="change")
    assert (logits[1] > 0).all()
    by_lr = logits[1].unstack("lr")
    assert (by_lr[LRS[1]] > by_lr[LRS[0]]).all()
    assert {"block0.attention_branch", "block1.ffn_branch", "block0.router_logits"} <= set(rows["coordinate"])


def test_coordinates_are_the_models_own(cell: Cell, corpus: Corpus) -> None:
    rows = pd.DataFrame(measure_coordinates(replace(cell, steps=(0,)), corpus))
    stack, _, _ = stack_of(cell, corpus)
    tokens = torch.from_numpy(corpus.heldout_windows(16)[:16, :-1])
    with torch.no_grad():
        logits = stack.model.logits(stack.state.parameters, tokens.expand(4, -1, -1))
    expected = logits.double().square().mean((1, 2)).sqrt()
    assert rows[rows["coordinate"] == "logits"]["rms"].tolist() == pytest.approx(expected.tolist())


def test_the_early_curve_is_the_log(cell: Cell, corpus: Corpus) -> None:
    rows = pd.DataFrame(measure_early_curve(replace(cell, lrs=LRS[:1], steps=(4,)), corpus))
    assert len(rows) == 2 * 4
    stack, _, _ = stack_of(replace(cell, lrs=LRS[:1]), corpus)
    stack.advance(4)
    assert np.array_equal(rows["loss"].to_numpy().reshape(2, 4), stack.log[:4].T.double().numpy())


def curve(ratio) -> pd.DataFrame:
    rows = [(seed, step, ratio(seed, step)) for seed in range(4) for step in range(64)]
    return pd.DataFrame(rows, columns=["seed", "step", "loss"])


@pytest.mark.parametrize(("trend", "verdict"), [(-0.02, "PASS"), (0.0, "PASS"), (0.03, "FAIL"), (0.01, "INCONCLUSIVE")])
def test_a_widening_trend_is_a_fail(trend: float, verdict: str) -> None:
    rng = np.random.default_rng(0)
    ours = curve(lambda seed, step: 3.0)
    offsets = 0.002 * rng.normal(size=4)
    theirs = curve(lambda seed, step: 3.0 * 2 ** ((trend + offsets[seed]) * math.log2(step + 1)))
    found = compare_early(ours, theirs)
    assert found.verdict == verdict, str(found)
    assert found.trend.mean == pytest.approx(trend + offsets.mean())


def test_a_curve_that_diverged_is_a_fail() -> None:
    assert compare_early(curve(lambda s, t: 3.0), curve(lambda s, t: math.nan)).verdict == "FAIL"
