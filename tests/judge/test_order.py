"""The order test on losses whose order is known."""

import math

import numpy as np
import pandas as pd
import pytest

from mue_check.judge.interval import t_interval
from mue_check.judge.order import judge_order
from mue_check.judge.verdict import Verdict


def tables(*columns: list[float]) -> list[pd.DataFrame]:
    return [pd.DataFrame({"seed": range(len(column)), "loss": column}) for column in columns]


FIRST, LOWER = [2.5, 2.6, 2.4, 2.5], [2.2, 2.31, 2.098, 2.2]


def test_each_must_be_surely_lower_than_the_one_before() -> None:
    found = judge_order(tables(FIRST, LOWER, [2.0, 2.1, 1.9, 2.012]))
    assert found.verdict is Verdict.PASS
    assert found.losses == pytest.approx((2.5, 2.202, 2.003))
    assert found.changes[0] == t_interval(list(np.subtract(LOWER, FIRST)))
    assert str(found).startswith("losses 2.500, 2.202, 2.003; changes -0.298 [")
    assert judge_order(tables(FIRST, LOWER, [2.2, 2.3, 2.11, 2.19])).verdict is Verdict.INCONCLUSIVE
    assert judge_order(tables(FIRST, LOWER, [2.3, 2.4, 2.2, 2.31])).verdict is Verdict.FAIL


def test_seeds_are_paired() -> None:
    """The seeds differ by far more than the models."""
    shuffled = tables(FIRST, LOWER)
    shuffled[1] = shuffled[1].iloc[[2, 0, 3, 1]]
    assert judge_order(shuffled).verdict is Verdict.PASS


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_fails(loss: float) -> None:
    assert judge_order(tables(FIRST, [*LOWER[:3], loss])).verdict is Verdict.FAIL


def test_more_looks_need_clearer_losses() -> None:
    """t is 4.0 here: one look needs 3.2, and the first of three 4.9."""
    close = tables(FIRST, [loss - change for loss, change in zip(FIRST, (0.05, 0.12, 0.16, 0.07), strict=True)])
    assert judge_order(close).verdict is Verdict.PASS
    assert judge_order(close, (4, 8, 12)).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("models", [2, 4])
def test_models_that_are_alike_seldom_pass_or_fail(models: int) -> None:
    """At most 2.5 % each, however long the ladder."""
    rng = np.random.default_rng(0)
    verdicts = [judge_order(tables(*rng.normal(size=(models, 4)).tolist())).verdict for _ in range(300)]
    assert verdicts.count(Verdict.PASS) <= 18
    assert verdicts.count(Verdict.FAIL) <= 18
