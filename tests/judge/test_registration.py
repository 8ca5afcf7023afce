"""Registration of whole curves: what a drift may depend on, and what it needs, for any curves."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mue_check.judge.drift import judge_drift
from mue_check.judge.optimum import Curve
from mue_check.judge.verdict import Verdict
from tests.judge.arms import FACTORS, SEEDS, TOLERANCES, Pair, clear, numbers, pairs, quick, same

whole = partial(judge_drift, whole=True)
CLOSE = 0.02
"""Octaves by which a registration may differ, since it is the end of an iteration."""


@quick
@given(pairs(), numbers(-8, 8))
def test_a_constant_added_to_all_log2_learning_rates_moves_both_optima_by_it(pair: Pair, shift: float) -> None:
    before = pair.judged(whole=True)
    moved = [replace(arm, values=arm.values * 2.0**shift) for arm in (pair.reference, pair.target)]
    after = whole(*moved, 0.5)
    assert after.reference.resolved == before.reference.resolved
    assert after.target.resolved == before.target.resolved
    for ours, theirs in ((before.reference, after.reference), (before.target, after.target)):
        assert [theirs.by_seed[s] - shift for s in theirs.by_seed] == pytest.approx(
            list(ours.by_seed.values()), abs=1e-6
        )
    assert same(before.interval, after.interval, abs_=CLOSE)
    assert not clear(before.interval, -0.5, 0.5, by=2 * CLOSE) or after.verdict is before.verdict


@quick
@given(pairs(), FACTORS)
def test_the_unit_of_the_loss_does_not_matter(pair: Pair, factor: float) -> None:
    before = pair.judged(whole=True)
    scaled = [
        replace(arm, losses=factor * arm.losses, initial=factor * arm.initial) for arm in (pair.reference, pair.target)
    ]
    after = whole(*scaled, 0.5)
    assert after.by_seed == pytest.approx(before.by_seed, abs=5 * CLOSE)
    assert same(before.interval, after.interval, abs_=CLOSE)
    assert not clear(before.interval, -0.5, 0.5, by=2 * CLOSE) or after.verdict is before.verdict
    assert [after.regret, after.gain] == pytest.approx(
        [factor * before.regret, factor * before.gain], rel=1e-5, abs=1e-9 * factor, nan_ok=True
    )


@quick
@given(pairs(), st.randoms(use_true_random=False))
def test_the_order_of_the_seeds_does_not_matter(pair: Pair, random: object) -> None:
    before = pair.judged(whole=True)
    shuffled = []
    for arm in (pair.reference, pair.target):
        order = list(range(len(arm.seeds)))
        random.shuffle(order)  # type: ignore[attr-defined]
        seeds = tuple(arm.seeds[at] for at in order)
        shuffled.append(Curve(values=arm.values, seeds=seeds, losses=arm.losses[order], initial=arm.initial[order]))
    after = whole(*shuffled, 0.5)
    assert after.by_seed == pytest.approx(before.by_seed, abs=5 * CLOSE)
    assert same(before.interval, after.interval, abs_=CLOSE)
    assert not clear(before.interval, -0.5, 0.5, by=2 * CLOSE) or after.verdict is before.verdict


@quick
@given(pairs(), TOLERANCES)
def test_arms_that_are_swapped_drift_the_other_way(pair: Pair, tolerance: float) -> None:
    there, back = pair.judged(tolerance, whole=True), whole(pair.target, pair.reference, tolerance)
    assert same(there.interval, back.interval, factor=-1, abs_=CLOSE)
    assert back.by_seed == pytest.approx({seed: -drift for seed, drift in there.by_seed.items()}, abs=5 * CLOSE)
    assert not clear(there.interval, -tolerance, tolerance, by=2 * CLOSE) or back.verdict is there.verdict
    assert back.gain == pytest.approx(-there.gain, nan_ok=True)
    assert (back.reason is None) == (there.reason is None)


@quick
@given(pairs())
def test_seeds_need_not_be_paired(pair: Pair) -> None:
    other = replace(pair.target, seeds=tuple(seed + 100 for seed in pair.target.seeds))
    found = whole(pair.reference, other, 2.0)
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
    further = whole(pair.reference, moved, 0.5)
    if further.registration and (before := pair.judged(whole=True).registration):
        assert further.registration.interval.mean > before.interval.mean


@quick
@given(pairs(), SEEDS)
def test_a_constant_added_to_every_loss_of_a_seed_does_not_matter(pair: Pair, seed: int) -> None:
    before, rng = pair.judged(whole=True), np.random.default_rng(seed)
    offsets = [rng.normal(size=(len(arm.seeds), 1)) for arm in (pair.reference, pair.target)]
    arms = (pair.reference, pair.target)
    moved = [
        replace(arm, losses=arm.losses + offset, initial=arm.initial + 5)
        for arm, offset in zip(arms, offsets, strict=True)
    ]
    after = whole(*moved, 0.5)
    if before.registration and after.registration:
        assert same(before.registration.interval, after.registration.interval, abs_=CLOSE)


@quick
@given(pairs(), SEEDS, st.sampled_from([math.nan, math.inf, 99.0]))
def test_values_at_which_one_seed_diverged_leave_an_answer(pair: Pair, seed: int, loss: float) -> None:
    rng = np.random.default_rng(seed)
    losses = pair.target.losses.copy()
    for value in rng.choice(losses.shape[1], size=2, replace=False):
        losses[rng.integers(len(losses)), value] = loss
    found = whole(pair.reference, replace(pair.target, losses=losses), 2.0)
    assert found.registration is not None
    assert math.isfinite(found.registration.interval.half_width)
