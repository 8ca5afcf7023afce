"""A law is judged on every rung and in every block, and an exponent by its slope and its misfit."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mue_check.judge.law import Law, Rung, judge_law, log2_levels
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


SLOPE = replace(LAW, form="exponent", tolerance=0.25, expected=-0.5)


def ladder(*levels: float, slope: float = 0.0, blocks: int = 1) -> list[Rung]:
    """Rungs of sizes 32, 64, ... at these log2 levels, plus a line; four seeds that differ in level."""
    return [
        replace(
            rung(f"d{32 * 2**at}", [level + slope * at + 0.01 * seed for seed in range(4)], blocks), size=32 * 2**at
        )
        for at, level in enumerate(levels)
    ]


def test_a_line_with_the_expected_slope_passes() -> None:
    result = judge_law(SLOPE, ladder(0, 0, 0, 0, slope=-0.5))
    assert result.verdict is Verdict.PASS
    assert result.interval.mean == pytest.approx(-0.5)
    assert result.misfit is not None
    assert result.misfit.mean == pytest.approx(0, abs=1e-9)
    assert judge_law(SLOPE, ladder(0, 0, slope=-0.5)).verdict is Verdict.PASS


def test_a_slope_that_is_off_fails_with_the_pair_of_rungs() -> None:
    result = judge_law(SLOPE, ladder(0, 0.2, -0.1, 0.0))
    assert (result.verdict, result.worst) == (Verdict.FAIL, "d32 -> d64")
    assert judge_law(SLOPE, ladder(0, 0, 0, slope=-0.2)).verdict is Verdict.FAIL
    assert judge_law(SLOPE, ladder(0, 0, 0, slope=-0.8)).verdict is Verdict.FAIL
    assert judge_law(SLOPE, ladder(0, 0, 0, slope=-0.7)).verdict is Verdict.PASS


def test_a_bump_in_the_middle_is_no_power_law() -> None:
    """16 times too large in the middle of three rungs: the slope is still the expected one."""
    result = judge_law(SLOPE, ladder(0, 4, 0, slope=-0.5))
    assert result.interval.mean == pytest.approx(-0.5)
    assert result.verdict is Verdict.FAIL
    assert result.worst == "d64, +2.67 octaves off the line"
    assert result.misfit is not None
    assert result.misfit.mean == pytest.approx(8 / 3)
    assert "+2.67 octaves off the line" in str(result)


@pytest.mark.parametrize(("bump", "verdict"), [(0.36, Verdict.PASS), (0.39, Verdict.FAIL), (-0.39, Verdict.FAIL)])
def test_a_misfit_may_be_as_large_as_the_slope_allows_at_the_ends(bump: float, verdict: Verdict) -> None:
    """A slope that is off by 0.25 puts the ends of three rungs off by 0.25 octave; the bump's residual is 2/3 of it."""
    assert judge_law(SLOPE, ladder(0, bump, 0, slope=-0.5)).verdict is verdict


def test_a_misfit_that_is_not_known_is_inconclusive() -> None:
    rungs = ladder(0, 0, 0, slope=-0.5)
    rungs[1] = replace(rung("d64", [level - 0.5 for level in (-0.8, 0.8, -0.8, 0.8)]), size=64)
    result = judge_law(SLOPE, rungs)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "off the line" in result.worst


def in_blocks(label: str, *factors: float, size: float = 32, quantity: str = "rms") -> Rung:
    """Four seeds of a model whose blocks have these values."""
    rows = [
        {"seed": seed, "step": 0, "coordinate": f"block{b}.ffn_branch", "rms": 1.0, "change": 1.0} | {quantity: factor}
        for seed in range(4)
        for b, factor in enumerate(factors)
    ]
    return Rung(label=label, size=size, table=pd.DataFrame(rows))


def test_blocks_that_are_wrong_in_opposite_directions_fail() -> None:
    """Their RMS is the reference's."""
    result = judge_law(LAW, [in_blocks("r", 1, 1), in_blocks("odd", 0.5, 1.75**0.5)])
    assert result.verdict is Verdict.FAIL
    assert result.worst == "odd in block 0"
    result = judge_law(LAW, [in_blocks("r", 1, 1), in_blocks("odd", 1, 1.2)])
    assert (result.verdict, result.worst) == (Verdict.FAIL, "odd")
    assert judge_law(LAW, [in_blocks("r", 2, 1), in_blocks("same", 2, 1)]).verdict is Verdict.PASS


def test_where_rungs_differ_in_depth_the_first_and_the_last_block_are_compared() -> None:
    law = replace(LAW, over_blocks="sum")
    shallow = in_blocks("r", 1, 1)
    assert judge_law(law, [shallow, in_blocks("deep", *[0.5] * 4)]).verdict is Verdict.PASS
    first = judge_law(law, [shallow, in_blocks("deep", 0.2, 0.5, 0.5, 0.8)])
    assert (first.verdict, first.worst) == (Verdict.FAIL, "deep in block 0")
    last = judge_law(law, [shallow, in_blocks("deep", 0.5, 0.2, 0.5, 0.8)])
    assert (last.verdict, last.worst) == (Verdict.FAIL, "deep in the last block")
    assert judge_law(law, [shallow, in_blocks("deep", 0.5, 0.2, 0.8, 0.5)]).verdict is Verdict.PASS


def test_blocks_are_in_the_order_of_their_numbers() -> None:
    many, few = in_blocks("many", *[1.0] * 10, 3.0), in_blocks("few", 1.0, 3.0)
    assert judge_law(replace(LAW, tolerance=2.0), [few, many]).verdict is Verdict.PASS
    result = judge_law(replace(LAW, tolerance=1.45), [in_blocks("few", 1.0, 1.0), in_blocks("many", *[1.0] * 10, 3.0)])
    assert (result.verdict, result.worst) == (Verdict.FAIL, "many in the last block")


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -1.0])
def test_one_block_that_is_dead_fails(value: float) -> None:
    for law in (LAW, SLOPE, replace(LAW, over_blocks="sum")):
        result = judge_law(law, [in_blocks("r", 1, 1), in_blocks("dead", 1, value, size=64)])
        assert (result.verdict, result.worst) == (Verdict.FAIL, "dead, zero or not finite")


def test_one_seed_without_a_block_fails() -> None:
    rungs = [in_blocks("r", 1, 1), in_blocks("short", 1, 1, size=64)]
    rungs[1] = replace(rungs[1], table=rungs[1].table.iloc[:-1])
    assert judge_law(LAW, rungs).verdict is Verdict.FAIL


def test_one_seed_is_not_enough() -> None:
    rungs = [Rung(label=r.label, size=r.size, table=r.table[r.table["seed"] == 0]) for r in ladder(0, 0, 0, slope=-0.5)]
    assert judge_law(SLOPE, rungs).verdict is Verdict.INCONCLUSIVE
    assert judge_law(LAW, rungs).verdict is Verdict.INCONCLUSIVE


def test_a_coordinate_that_is_not_in_the_table_is_named() -> None:
    for law in (replace(LAW, coordinate="logits"), replace(LAW, step=5), replace(LAW, coordinate="branch")):
        with pytest.raises(ValueError, match=f"no coordinate {law.coordinate!r} at step {law.step}"):
            judge_law(law, ladder(0, 0))


def test_a_law_states_itself() -> None:
    assert LAW.statement == "RMS of ffn_branch at initialization: the reference's within 7%"
    assert SLOPE.statement == "RMS of ffn_branch at initialization: slope -0.5 +- 0.25"
    change = replace(SLOPE, quantity="change", step=1)
    assert change.statement == "change of ffn_branch after 1 step: slope -0.5 +- 0.25"
    summed = replace(change, step=5, over_blocks="sum")
    assert summed.statement == "change, summed over blocks, of ffn_branch after 5 steps: slope -0.5 +- 0.25"
    assert str(judge_law(LAW, ladder(0, 0))) == f"PASS: {LAW.statement}; measured +0.00 [+0.00, +0.00], worst d64"


def test_a_ratio_is_judged_against_the_expected_one() -> None:
    law = replace(LAW, expected=1.0)
    rungs = [rung("r", [0.0] * 4), rung("twice", [1.0] * 4), rung("same", [1.05] * 4)]
    assert judge_law(law, rungs).verdict is Verdict.PASS
    result = judge_law(law, [*rungs, rung("equal", [0.0] * 4), rung("more", [1.5] * 4)])
    assert (result.verdict, result.worst) == (Verdict.FAIL, "equal")


def test_the_pair_of_rungs_with_the_steepest_slope_is_named() -> None:
    rungs = [replace(rung(label, [level] * 4), size=size) for label, level, size in (("a", 0, 32), ("b", 0.3, 64))]
    rungs.append(replace(rung("c", [0.65] * 4), size=512))  # 0.3 per doubling, then 0.12
    result = judge_law(replace(SLOPE, expected=0.0), rungs)
    assert (result.verdict, result.worst) == (Verdict.PASS, "a -> b")
    result = judge_law(replace(SLOPE, expected=0.3), rungs)
    assert (result.verdict, result.worst) == (Verdict.PASS, "b -> c")


def test_nothing_is_measured_of_a_dead_rung() -> None:
    rungs = [in_blocks("r", 1, 1), in_blocks("dead", 1, 0)]
    result = judge_law(LAW, rungs)
    assert (result.law, result.interval.n, result.misfit) == (LAW, 0, None)
    # a figure draws what is left, without a warning
    assert log2_levels(LAW, in_blocks("dead", 0, 0)).tolist() == [-np.inf] * 4
