"""Properties that every verdict has, whatever was measured: what it may depend on, and what it needs."""

import math
from dataclasses import replace
from functools import partial
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mue_check.judge.drift import MIN_SEEDS, Drift, judge_drift
from mue_check.judge.early import compare_early
from mue_check.judge.interval import Interval, t_interval
from mue_check.judge.law import Law, Rung, judge_law
from mue_check.judge.load import judge_load
from mue_check.judge.optimum import WINDOW, Curve, fit_optimum
from mue_check.judge.speedup import compare_learning
from mue_check.judge.verdict import Verdict, judge_interval
from tests.judge.arms import FACTORS, SEEDS, TOLERANCES, Pair, clear, numbers, pairs, quick, same

judge_whole = partial(judge_drift, whole=True)
whole_or_fitted = pytest.mark.parametrize("whole", [False, True], ids=["fitted", "whole"])


def unchanged(before: Drift, after: Drift, *, whole: bool, factor: float = 1.0, tolerance: float = 0.5) -> bool:
    """Whether the drift is ``factor`` times the earlier one, up to rounding, or to the end of an iteration."""
    close = 0.02 if whole else 1e-6
    assert same(before.interval, after.interval, factor=factor, abs_=close)
    assert after.by_seed == pytest.approx({s: factor * d for s, d in before.by_seed.items()}, abs=5 * close)
    assert (after.reason is None) == (before.reason is None)
    sure = clear(before.interval, -tolerance, tolerance, by=2 * close if whole else 1e-4)
    return not sure or after.verdict is before.verdict


@whole_or_fitted
@quick
@given(pairs(), numbers(-8, 8))
def test_a_constant_added_to_all_log2_learning_rates_moves_both_optima_by_it(
    whole: bool, pair: Pair, shift: float
) -> None:
    before = pair.judged(whole=whole)
    after = pair.changed(lambda arm: replace(arm, values=arm.values * 2.0**shift)).judged(whole=whole)
    for ours, theirs in ((before.reference, after.reference), (before.target, after.target)):
        assert theirs.resolved == ours.resolved
        assert [x - shift for x in theirs.by_seed.values()] == pytest.approx(list(ours.by_seed.values()), abs=1e-6)
    assert unchanged(before, after, whole=whole)


@whole_or_fitted
@quick
@given(pairs(), FACTORS)
def test_the_unit_of_the_loss_does_not_matter(whole: bool, pair: Pair, factor: float) -> None:
    before = pair.judged(whole=whole)
    scaled = pair.changed(lambda arm: replace(arm, losses=factor * arm.losses, initial=factor * arm.initial))
    after = scaled.judged(whole=whole)
    assert unchanged(before, after, whole=whole)
    assert [after.regret, after.gain] == pytest.approx(
        [factor * before.regret, factor * before.gain], rel=1e-5, abs=1e-9 * factor, nan_ok=True
    )


@whole_or_fitted
@quick
@given(pairs(), st.randoms(use_true_random=False))
def test_the_order_of_the_seeds_does_not_matter(whole: bool, pair: Pair, random: Random) -> None:
    def shuffled(arm: Curve) -> Curve:
        order = random.sample(range(len(arm.seeds)), len(arm.seeds))
        seeds = tuple(arm.seeds[at] for at in order)
        return Curve(values=arm.values, seeds=seeds, losses=arm.losses[order], initial=arm.initial[order])

    assert unchanged(pair.judged(whole=whole), pair.changed(shuffled).judged(whole=whole), whole=whole)


@whole_or_fitted
@quick
@given(pairs(), TOLERANCES)
def test_arms_that_are_swapped_drift_the_other_way(whole: bool, pair: Pair, tolerance: float) -> None:
    there = pair.judged(tolerance, whole=whole)
    back = Pair(reference=pair.target, target=pair.reference).judged(tolerance, whole=whole)
    assert unchanged(there, back, whole=whole, factor=-1, tolerance=tolerance)
    assert back.gain == pytest.approx(-there.gain, nan_ok=True)


@quick
@given(pairs(), TOLERANCES, TOLERANCES)
def test_a_wider_tolerance_never_loses_a_pass_or_adds_a_fail(pair: Pair, one: float, other: float) -> None:
    narrow, wide = (pair.judged(tolerance).verdict for tolerance in sorted((one, other)))
    assert narrow is not Verdict.PASS or wide is Verdict.PASS
    assert wide is not Verdict.FAIL or narrow is Verdict.FAIL


@quick
@given(numbers(-3, 3), numbers(0, 2), TOLERANCES, TOLERANCES, numbers(-1, 1), st.sampled_from([0.0, 0.7, -0.7]))
def test_intervals_are_judged_monotonously(
    mean: float, half: float, one: float, other: float, center: float, residual: float
) -> None:
    interval = Interval(mean, mean - half, mean + half, 4)
    narrow, wide = (judge_interval(interval, t, center=center, residual=residual) for t in sorted((one, other)))
    assert narrow is not Verdict.PASS or wide is Verdict.PASS
    assert wide is not Verdict.FAIL or narrow is Verdict.FAIL
    assert narrow is not Verdict.RESIDUAL or wide in (Verdict.PASS, Verdict.RESIDUAL)
    flipped = Interval(-mean, -mean - half, -mean + half, 4)
    assert judge_interval(flipped, one, center=-center, residual=-residual) is judge_interval(
        interval, one, center=center, residual=residual
    )


@quick
@given(numbers(-2, 2), TOLERANCES, st.sampled_from(["mean and ends", "ends", "tolerance"]))
def test_what_is_not_a_number_never_passes(value: float, tolerance: float, what: str) -> None:
    end = math.nan if "ends" in what else value
    interval = Interval(math.nan if "mean" in what else value, end, end, 4)
    verdict = judge_interval(interval, math.nan if what == "tolerance" else tolerance)
    assert verdict in (Verdict.INCONCLUSIVE, Verdict.FAIL)


@quick
@given(pairs(seeds=st.integers(1, MIN_SEEDS - 1)), TOLERANCES)
def test_too_few_seeds_never_pass(pair: Pair, tolerance: float) -> None:
    found = pair.judged(tolerance)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason is not None


@quick
@given(pairs(), st.integers(1, 8))
def test_too_few_common_seeds_never_pass(pair: Pair, kept: int) -> None:
    n = len(pair.target.seeds)
    common = min(kept, MIN_SEEDS - 1)
    other = tuple(seed if seed < common else seed + 100 for seed in range(n))
    found = judge_drift(pair.reference, replace(pair.target, seeds=other), 2.0)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason is not None


@quick
@given(pairs(points=WINDOW - 1))
def test_too_few_values_never_pass(pair: Pair) -> None:
    assert pair.judged(2.0).verdict is Verdict.INCONCLUSIVE


@quick
@given(pairs(), SEEDS, st.sampled_from([math.nan, math.inf, 99.0]))
def test_values_at_which_some_seed_diverged_do_not_count(pair: Pair, seed: int, loss: float) -> None:
    rng = np.random.default_rng(seed)
    losses = pair.target.losses.copy()
    for value in rng.choice(losses.shape[1], size=losses.shape[1] - WINDOW + 1, replace=False):
        losses[rng.integers(len(losses)), value] = loss
    found = judge_drift(pair.reference, replace(pair.target, losses=losses), 2.0)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "usable" in (found.reason or "")


@quick
@given(pairs(), SEEDS)
def test_one_initial_loss_that_is_not_a_number_never_passes(pair: Pair, seed: int) -> None:
    initial = pair.target.initial.copy()
    initial[seed % len(initial)] = math.nan
    for arms in ((pair.reference, replace(pair.target, initial=initial)), (replace(pair.target, initial=initial),) * 2):
        assert judge_drift(*arms, 2.0).verdict is not Verdict.PASS


@quick
@given(pairs(), numbers(1e-3, 10.0))
def test_curves_that_fall_for_ever_have_no_optimum(pair: Pair, slope: float) -> None:
    for sign in (1, -1):
        losses = pair.target.losses * 0 + 5.0 + sign * slope * pair.target.x
        falling = replace(pair.target, losses=losses, initial=np.full(len(losses), 999.0))
        assert not fit_optimum(falling).resolved
        assert judge_drift(pair.reference, falling, 2.0).verdict is Verdict.INCONCLUSIVE


@quick
@given(st.lists(numbers(-1e3, 1e3), min_size=2, max_size=12), numbers(-100, 100), numbers(-100, 100))
def test_an_interval_moves_with_its_values(values: list[float], shift: float, factor: float) -> None:
    before = t_interval(values)
    assert before.low <= before.mean <= before.high
    assert same(before, t_interval([factor * value for value in values]), factor=factor)
    after = t_interval([value + shift for value in values])
    assert [after.low - shift, after.high - shift] == pytest.approx([before.low, before.high], abs=1e-6)
    assert same(before, t_interval(values[::-1]))


RATIO = Law(name="l", coordinate="logits", quantity="rms", step=0, form="ratio", tolerance=0.3, source="a test")
LAWS = (RATIO, replace(RATIO, form="exponent", expected=-0.5), replace(RATIO, over_blocks="sum", coordinate="branch"))


@st.composite
def ladders(draw: st.DrawFn) -> list[Rung]:
    """Three or four sizes; logits, and a branch in each of two or more blocks."""
    rng = np.random.default_rng(draw(SEEDS))
    slope, noise, bump = draw(numbers(-1, 0)), draw(st.sampled_from([0.01, 0.1])), draw(numbers(-0.5, 0.5))
    deep = draw(st.booleans())
    rungs = []
    for at in range(draw(st.integers(3, 4))):
        rows = [
            (seed, 0, name, 2 ** (slope * at + bump * (at == 1) + noise * rng.normal()))
            for seed in range(4)
            for name in ("logits", *(f"block{b}.branch" for b in range(2 * (at + 1) if deep else 2)))
        ]
        table = pd.DataFrame(rows, columns=["seed", "step", "coordinate", "rms"])
        rungs.append(Rung(label=f"d{at}", size=32 * 2**at, table=table))
    return rungs


@quick
@given(ladders(), FACTORS, st.sampled_from(LAWS))
def test_a_law_depends_on_ratios_alone(rungs: list[Rung], factor: float, law: Law) -> None:
    before = judge_law(law, rungs)
    scaled = [replace(r, size=3 * r.size, table=r.table.assign(rms=factor * r.table["rms"])) for r in rungs]
    shuffled = [replace(r, table=r.table.sample(frac=1, random_state=1)) for r in rungs]
    for after in (judge_law(law, scaled), judge_law(law, shuffled)):
        assert same(before.interval, after.interval)
        assert after.verdict is before.verdict


@quick
@given(ladders(), numbers(0.01, 1), numbers(0.01, 1), st.sampled_from(LAWS))
def test_a_wider_law_never_loses_a_pass_or_adds_a_fail(rungs: list[Rung], one: float, other: float, law: Law) -> None:
    narrow, wide = (judge_law(replace(law, tolerance=t), rungs).verdict for t in sorted((one, other)))
    assert narrow is not Verdict.PASS or wide is Verdict.PASS
    assert wide is not Verdict.FAIL or narrow is Verdict.FAIL


@quick
@given(ladders(), SEEDS, st.sampled_from([math.nan, math.inf, 0.0]), st.sampled_from(LAWS))
def test_one_number_of_a_law_that_is_not_finite_fails(rungs: list[Rung], seed: int, bad: float, law: Law) -> None:
    rng = np.random.default_rng(seed)
    at = int(rng.integers(len(rungs)))
    table = rungs[at].table.copy()
    rows = np.flatnonzero(table["coordinate"].str.endswith(law.coordinate))
    table.loc[rng.choice(rows), "rms"] = bad
    rungs[at] = replace(rungs[at], table=table)
    assert judge_law(replace(law, tolerance=99.0), rungs).verdict is Verdict.FAIL


@quick
@given(ladders(), numbers(-6, 6))
def test_no_bump_that_the_tolerance_excludes_passes(rungs: list[Rung], bump: float) -> None:
    """In the middle of the ladder it leaves the slope alone or changes it; either way it shows."""
    law = replace(LAWS[1], tolerance=0.3)
    allowed = law.tolerance * math.log2(rungs[-1].size / rungs[0].size)
    assume(abs(bump) > 2 * allowed + 1)
    rungs[1] = replace(rungs[1], table=rungs[1].table.assign(rms=lambda t: t["rms"] * 2**bump))
    assert judge_law(law, rungs).verdict is not Verdict.PASS


@st.composite
def learning(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two arms whose losses fall with the logarithm of the step."""
    rng = np.random.default_rng(draw(SEEDS))
    arms = []
    for _ in range(2):
        start, rate = draw(numbers(2.0, 5.0)), draw(numbers(0.0, 0.2))
        rows = [
            (seed, step, start * 2 ** (-rate * math.log2(step + 1) + 0.003 * rng.normal()))
            for seed in range(4)
            for step in range(16)
        ]
        arms.append(pd.DataFrame(rows, columns=["seed", "step", "loss"]))
    return arms[0], arms[1]


@quick
@given(learning(), FACTORS)
def test_early_curves_are_compared_by_their_ratio(arms: tuple[pd.DataFrame, pd.DataFrame], factor: float) -> None:
    there, back = compare_early(*arms), compare_early(*arms[::-1])
    for name in ("start", "level", "trend"):
        assert same(getattr(there, name), getattr(back, name), factor=-1)
    scaled = compare_early(*(arm.assign(loss=factor * arm["loss"]) for arm in arms))
    assert same(there.trend, scaled.trend)
    assert same(there.learning, scaled.learning)
    assert scaled.verdict is there.verdict


@quick
@given(learning(), st.integers(0, 63), st.sampled_from([math.nan, math.inf, 0.0, -1.0]), st.booleans())
def test_one_early_loss_that_is_no_positive_number_fails(
    arms: tuple[pd.DataFrame, pd.DataFrame], row: int, loss: float, first: bool
) -> None:
    arms[0 if first else 1].loc[row, "loss"] = loss
    assert compare_early(*arms).verdict is Verdict.FAIL


@quick
@given(learning())
def test_speed_ups_are_inverse(arms: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    looked_at = [arm.assign(step=arm["step"] + 1) for arm in arms]
    there, back = compare_learning(*looked_at), compare_learning(*looked_at[::-1])
    assert same(there.overall, back.overall, factor=-1)


@quick
@given(st.integers(1, 4), st.integers(1, 3), SEEDS, numbers(0.5, 8), st.sampled_from([math.nan, 1.02, 0.98]))
def test_one_sum_of_weights_that_breaks_the_claim_fails(
    seeds: int, layers: int, seed: int, claim: float, factor: float
) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        (s, layer, e, 0.5, claim * (1 + rng.uniform(-9e-4, 9e-4)), 1.0)
        for s in range(seeds)
        for layer in range(layers)
        for e in range(2)
    ]
    table = pd.DataFrame(rows, columns=["seed", "layer", "expert", "load", "weight_sum", "variance_factor"])
    assert judge_load(table, claim).verdict is Verdict.PASS
    for column in ("weight_sum", "weight_sum_low", "weight_sum_high"):
        bad = table.assign(weight_sum_low=claim, weight_sum_high=claim)
        bad.loc[rng.integers(len(bad)), column] = factor * claim
        assert judge_load(bad, claim).verdict is Verdict.FAIL


@quick
@given(pairs())
def test_seeds_need_not_be_paired(pair: Pair) -> None:
    other = replace(pair.target, seeds=tuple(seed + 100 for seed in pair.target.seeds))
    found = judge_whole(pair.reference, other, 2.0)
    assert found.by_seed == {}
    assert found.registration is not None
    assert found.registration.interval.n == len(other.seeds)
    assert found.registration.se > 0


@quick
@given(pairs(points=2))
def test_two_values_never_pass(pair: Pair) -> None:
    assert pair.judged(2.0, whole=True).verdict is not Verdict.PASS


@quick
@given(pairs(), numbers(0.2, 1.0))
def test_a_target_that_moves_further_up_drifts_further(pair: Pair, step: float) -> None:
    moved = replace(pair.target, values=pair.target.values * 2.0**step)
    further = judge_whole(pair.reference, moved, 0.5)
    if further.registration and (before := pair.judged(whole=True).registration):
        assert further.registration.interval.mean > before.interval.mean


@quick
@given(pairs(), SEEDS)
def test_a_constant_added_to_every_loss_of_a_seed_does_not_matter(pair: Pair, seed: int) -> None:
    before, rng = pair.judged(whole=True), np.random.default_rng(seed)

    def moved(arm: Curve) -> Curve:
        return replace(arm, losses=arm.losses + rng.normal(size=(len(arm.seeds), 1)), initial=arm.initial + 5)

    after = pair.changed(moved).judged(whole=True)
    if before.registration and after.registration:
        assert same(before.registration.interval, after.registration.interval, abs_=0.02)


@quick
@given(pairs(), SEEDS, st.sampled_from([math.nan, math.inf, 99.0]))
def test_values_at_which_one_seed_diverged_leave_an_answer(pair: Pair, seed: int, loss: float) -> None:
    rng = np.random.default_rng(seed)
    losses = pair.target.losses.copy()
    for value in rng.choice(losses.shape[1], size=2, replace=False):
        losses[rng.integers(len(losses)), value] = loss
    found = judge_whole(pair.reference, replace(pair.target, losses=losses), 2.0)
    assert found.registration is not None
    assert math.isfinite(found.registration.interval.half_width)
