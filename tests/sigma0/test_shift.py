"""The shift of log2 sigma_0 between two models whose sigma is known."""

import math

import numpy as np
import pandas as pd
import pytest

from mue_check.errors import JudgeError
from mue_check.sigma0.power_law import mean_over_steps
from mue_check.sigma0.shift import sigma0_shift
from tests.sigma0.noise_tables import EXPERTS, noise_table, shares


def model(rng: np.random.Generator, gamma: float, exponent: float, *, seeds: int = 4, **options: float) -> pd.DataFrame:
    """Two layers of two kinds of matrix."""
    parts = [
        noise_table(rng, gamma, seeds=seeds, loads={"load": exponent}, **options).assign(layer=layer, kind=kind)
        for layer in (0, 1)
        for kind in ("up", "down")
    ]
    return pd.concat(parts)


def shortfall(exponent: float) -> float:
    """Bits that the mean expert is short of an even load."""
    return float(-np.log2(shares(exponent) * EXPERTS).mean())


@pytest.mark.parametrize("gamma", [0.5, 0.1])
def test_the_shift_is_gamma_times_the_shortfall_of_the_load(gamma: float) -> None:
    rng = np.random.default_rng(0)
    found = sigma0_shift(model(rng, gamma, 1.5, seeds=8), model(rng, gamma, 0.0, seeds=8))
    assert found.reason is None
    assert found.shift.low <= gamma * shortfall(1.5) <= found.shift.high
    assert found.theory == pytest.approx(shortfall(1.5) / 2, abs=0.03)
    assert found.residual.mean == pytest.approx((gamma - 0.5) * shortfall(1.5), abs=0.15)
    assert "octaves" in str(found)


def test_the_interval_covers() -> None:
    rng = np.random.default_rng(1)
    truth = 0.5 * shortfall(1.0)
    found = []
    for _ in range(40):
        arms = [noise_table(rng, 0.5, loads={"load": z}, variance=40.0).assign(layer=0, kind="up") for z in (1.0, 0.0)]
        shift = sigma0_shift(*arms)
        if shift.reason is None:
            found.append(shift.shift)
    assert len(found) > 32
    assert np.mean([i.low <= truth <= i.high for i in found]) >= 0.85


def test_a_dense_model_is_one_expert_with_all_tokens() -> None:
    mixture = model(np.random.default_rng(2), 0.5, 0.0)
    dense = mixture[mixture["expert"] == 0].assign(tokens=512.0)
    found = sigma0_shift(mixture, dense)
    assert found.theory == pytest.approx(math.log2(512 / 128) / 2, abs=0.02)


def test_the_power_law_stands_in_for_rare_experts_that_are_not_resolved() -> None:
    rng = np.random.default_rng(3)
    target, reference = model(rng, 0.5, 1.5), model(rng, 0.5, 0.0)
    target.loc[target["expert"] == 7, "signal"] *= -1
    found = sigma0_shift(target, reference)
    assert found.reason is None
    assert found.shift.low <= 0.5 * shortfall(1.5) <= found.shift.high
    target.loc[(target["expert"] < 3) & (target["layer"] == 1), "signal"] *= -1
    found = sigma0_shift(target, reference)
    # one expert in the first layer and four in the second
    assert found.reason is not None
    assert f"{(1 + 4) / 2 / EXPERTS:.0%} of the experts are not resolved in the target" in found.reason
    assert "no shift" in str(found)


def test_an_expert_without_tokens_has_no_share_in_it() -> None:
    rng = np.random.default_rng(4)
    target = model(rng, 0.5, 0.0)
    target.loc[target["expert"] == 7, ["tokens", "noise", "signal"]] = 0.0
    found = sigma0_shift(target, model(rng, 0.5, 0.0))
    assert found.reason is None


def test_seeds_must_be_common_and_settings_one() -> None:
    rng = np.random.default_rng(5)
    one, other = model(rng, 0.5, 1.0), model(rng, 0.5, 0.0)
    assert sigma0_shift(one, other[other["seed"] > 0]).seeds == (1, 2, 3)
    for least in (3, 4):
        found = sigma0_shift(one, other.assign(seed=other["seed"] + least))
        assert f"{4 - least} seed(s) in common" in str(found.reason)
    with pytest.raises(JudgeError, match="holds the settings a, b"):
        sigma0_shift(pd.concat([one.assign(setting="a"), one.assign(setting="b")]), other)


def test_a_step_whose_noise_is_not_a_number_is_not_left_out_of_the_mean() -> None:
    table = pd.DataFrame({"expert": [0, 0, 1, 1], "noise": [1.0, 2.0, 3.0, 5.0], "tokens": 1.0})
    assert mean_over_steps(table, ["expert"], ["noise", "tokens"])["noise"].tolist() == [1.5, 4.0]
    for bad in (math.nan, math.inf):
        table.loc[3, "noise"] = bad
        with pytest.raises(JudgeError, match="no finite noise for expert 1"):
            mean_over_steps(table, ["expert"], ["tokens", "noise"])
