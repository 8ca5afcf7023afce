"""Pairs of simulated arms for property tests of drifts, and comparisons of what is judged of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from mue_check.judge.drift import MIN_SEEDS, Drift, judge_drift
from mue_check.judge.interval import Interval
from mue_check.judge.optimum import Curve

quick = settings(max_examples=15, deadline=None, derandomize=True, database=None)
# tests that train flush subnormal numbers to zero for the whole process
numbers = partial(st.floats, allow_subnormal=False)
TOLERANCES = numbers(0.01, 2.0)
FACTORS = numbers(0.01, 100.0)
SEEDS = st.integers(0, 2**32 - 1)
ENOUGH = st.integers(MIN_SEEDS, 8)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two simulated arms with the same seeds."""

    reference: Curve
    target: Curve

    def changed(self, change: Callable[[Curve], Curve]) -> "Pair":
        return Pair(reference=change(self.reference), target=change(self.target))

    def judged(self, tolerance: float = 0.5, *, whole: bool = False) -> Drift:
        return judge_drift(self.reference, self.target, tolerance, whole=whole)


@st.composite
def pairs(draw: st.DrawFn, *, seeds: st.SearchStrategy[int] = ENOUGH, points: int = 9) -> Pair:
    """Parabolas with noise and a third-order term around optima that differ from seed to seed."""
    rng = np.random.default_rng(draw(SEEDS))
    n, drift = draw(seeds), draw(numbers(-1.5, 1.5))
    noise, skew = draw(st.sampled_from([1e-5, 1e-3, 4e-3])), draw(st.sampled_from([0.0, 1e-3]))
    spread = draw(st.sampled_from([0.01, 0.1, 0.3]))
    x = -6.0 + 0.75 * (np.arange(points) - points // 2)

    def arm(center: float) -> Curve:
        off = x - center - spread * rng.normal(size=n)[:, None]
        losses = 2.9 + 0.02 * off**2 + skew * off**3 + noise * rng.normal(size=off.shape)
        return Curve(values=2.0**x, seeds=tuple(range(n)), losses=losses, initial=np.full(n, 9.0))

    return Pair(reference=arm(-6.0), target=arm(-6.0 + drift))


def same(one: Interval, other: Interval, *, factor: float = 1.0, abs_: float = 1e-6) -> bool:
    """Equal up to rounding, after multiplication; a negative factor swaps the ends."""
    ends = sorted([factor * one.low, factor * one.high]) if math.isfinite(one.low) else [one.low, one.high]
    expected = [factor * one.mean, *ends, one.n]
    return [other.mean, other.low, other.high, other.n] == pytest.approx(expected, rel=1e-5, abs=abs_, nan_ok=True)


def clear(interval: Interval, *bounds: float, by: float = 1e-4) -> bool:
    """Whether rounding cannot change on which side of the bounds the ends lie."""
    return all(abs(end - bound) > by for end in (interval.low, interval.high) for bound in bounds)
