"""A law of ratios is judged on every rung, and blocks are joined as it says."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mue_check.judge.law import Law, Rung, judge_law
from mue_check.judge.verdict import Verdict

LAW = Law(name="branch", coordinate="ffn_branch", quantity="rms", step=0, form="ratio", tolerance=0.1, source="a test")


def rung(label: str, log2_levels: list[float], blocks: int = 1, share: float = 1.0) -> Rung:
    """One seed per level; every block has that level times its share."""
    rows = [
        {"seed": seed, "step": 0, "coordinate": f"block{b}.ffn_branch", "rms": share * 2.0**level, "change": 0.0}
        for seed, level in enumerate(log2_levels)
        for b in range(blocks)
    ]
    return Rung(label=label, size=len(label), table=pd.DataFrame(rows))


def test_a_rung_that_is_open_is_not_hidden_by_one_that_is_farther_off_and_sure() -> None:
    reference = rung("r", [0.0] * 4)
    sure, open_ = rung("sure", [0.06] * 4), rung("open", [0.0, 0.2, -0.2, 0.1])
    assert judge_law(LAW, [reference, sure]).verdict is Verdict.PASS
    result = judge_law(LAW, [reference, sure, open_])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.worst == "open"
    wrong = judge_law(LAW, [reference, open_, rung("wrong", [0.5] * 4), rung("worse", [-1.0] * 4)])
    assert (wrong.verdict, wrong.worst) == (Verdict.FAIL, "worse")
    assert wrong.interval.mean == pytest.approx(-1)


def test_blocks_that_each_carry_a_share_are_summed() -> None:
    shallow, deep = rung("two", [0.3] * 4, blocks=2), rung("eight", [0.3] * 4, blocks=8, share=1 / 4)
    assert judge_law(LAW, [shallow, deep]).interval.mean == pytest.approx(-2)
    summed = judge_law(replace(LAW, over_blocks="sum"), [shallow, deep])
    assert summed.verdict is Verdict.PASS
    assert summed.interval.mean == pytest.approx(0)
    assert "summed over blocks" in summed.law.statement


def test_an_activation_that_is_dead_fails() -> None:
    result = judge_law(LAW, [rung("r", [0.0] * 4), rung("dead", [-np.inf] * 4)])
    assert result.verdict is Verdict.FAIL
    assert "dead" in result.worst
