"""The verdict on a sweep: the optimum of each arm, its drift against the reference, and its power of the arm's size.

Where a table has seeds and one cell, a drift is judged by ``judge_drift``, as in the suites; else from matched cells.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mue_check.errors import JudgeError, unknown
from mue_check.judge.drift import MIN_SEEDS, Drift, judge_drift
from mue_check.judge.interval import Interval, t_interval
from mue_check.judge.power import detectable_of
from mue_check.judge.trend import slopes_by_seed
from mue_check.judge.verdict import Verdict, join, judge_interval
from mue_check.sweeps.cells import (
    NONE,
    Fits,
    all_fits,
    at,
    drift_of,
    exponent_of,
    left_out,
    regret_and_gain,
    shift_of_shape,
)
from mue_check.sweeps.sweep import Arm, Sweep


@dataclass(frozen=True, kw_only=True)
class ArmFound:
    """An arm: its ``optimum`` in log2 rate, the mean over the ``resolved`` of its ``replicates``.

    ``drift`` is against the reference, less what a law prescribes. ``regret`` is what the arm loses at the optimum of
    the reference, ``gain`` what it wins over it, both in the unit of the losses; NaN without optima. ``detectable`` is
    as in a Drift. The reference itself has no verdict. ``note`` says what is missing.
    """

    arm: Arm
    optimum: Interval
    resolved: int
    replicates: int
    drift: Interval = NONE
    regret: float = math.nan
    gain: float = math.nan
    detectable: float = math.inf
    verdict: Verdict | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """All arms of a sweep, and the ``exponent`` of the optimal rate: octaves per doubling of the arm's size."""

    sweep: Sweep
    reference: Arm
    tolerance: float
    law: float
    arms: tuple[ArmFound, ...]
    exponent: Interval

    @property
    def verdict(self) -> Verdict:
        """The worst of the arms; INCONCLUSIVE if there is nothing to compare."""
        return join(found.verdict for found in self.arms if found.verdict is not None)


def judge_sweep(sweep: Sweep, tolerance: float, *, law: float = 0.0, reference: str | None = None) -> Judged:
    """Judge every arm against the ``reference``, by default the smallest with enough optima.

    ``law`` is the exponent that the optimum is supposed to have; 0 says that it stays. JudgeError if a reference does
    not exist, or a law needs sizes that the arms do not have.
    """
    fits = all_fits(sweep)
    base = _reference(sweep, fits[0], reference)
    if law and not all(arm.size > 0 for arm in sweep.arms):
        raise JudgeError(f"--law {law:g}: the arms have no sizes, such as {sweep.arms[0].label!r}")
    targets = [arm for arm in sweep.arms if arm is not base]
    expected = {arm.label: law * math.log2(arm.size / base.size) if law else 0.0 for arm in targets}
    if sweep.is_seeded:
        drifts = [(arm, _seeded_drift(sweep, base, arm, tolerance, expected[arm.label])) for arm in targets]
        judged = [_of_drift(arm, drift, expected[arm.label], len(fits[0].by_arm[arm.label])) for arm, drift in drifts]
        known = [(arm.size, drift) for arm, drift in drifts if drift.reason is None and arm.size > 0]
        slopes = slopes_by_seed(base.size, known) if known and base.size > 0 else []
        exponent = t_interval([slope + law for slope in slopes])
    else:
        judged = [_of_cells(fits, base, arm, tolerance, expected[arm.label]) for arm in targets]
        exponent = exponent_of(fits, sweep.arms)
    found = {each.arm.label: each for each in (_of_reference(fits[0], base), *judged)}
    arms = tuple(found[arm.label] for arm in sweep.arms)
    return Judged(sweep=sweep, reference=base, tolerance=tolerance, law=law, arms=arms, exponent=exponent)


def _reference(sweep: Sweep, fits: Fits, label: str | None) -> Arm:
    if label is not None:
        for arm in sweep.arms:
            if label == arm.label:
                return arm
        raise JudgeError(f"--reference: {unknown('arm', label, [arm.label for arm in sweep.arms[:20]])}")
    counts = [min(len(fits.resolved(arm)), MIN_SEEDS) for arm in sweep.arms]
    return sweep.arms[counts.index(max(counts))]


def _seeded_drift(sweep: Sweep, base: Arm, arm: Arm, tolerance: float, expected: float) -> Drift:
    """As the suites judge it; the target's rates are divided by what a law prescribes."""
    loss = sweep.columns.losses[0]
    target = sweep.seeded_curve(arm, loss)
    moved = replace(target, values=target.values * 2**-expected)
    drift = judge_drift(sweep.seeded_curve(base, loss), moved, tolerance, whole=True)
    return _with_optima(drift, tolerance) if drift.reason is None and drift.is_fitted else drift


def _with_optima(drift: Drift, tolerance: float) -> Drift:
    """If curves and optima moved by amounts that differ significantly, the interval reaches from one to the other.

    Walls that are steeper in one arm than in the other displace a curve as a whole, and its optimum by less.
    """
    whole, optima = drift.interval, drift.parabola
    if optima.n < MIN_SEEDS:  # seeds of other names: nothing is paired
        ours, theirs = drift.reference.interval, drift.target.interval
        mean, half = theirs.mean - ours.mean, math.hypot(ours.half_width, theirs.half_width)
        optima = replace(theirs, mean=mean, low=mean - half, high=mean + half)
    if abs(whole.mean - optima.mean) <= math.hypot(whole.half_width, optima.half_width):
        return drift
    both = replace(whole, low=min(whole.low, optima.low), high=max(whole.high, optima.high))
    return replace(drift, interval=both, detectable=math.inf, verdict=judge_interval(both, tolerance))


def _of_drift(arm: Arm, drift: Drift, expected: float, seeds: int) -> ArmFound:
    own = drift.target.interval
    return ArmFound(
        arm=arm,
        optimum=own.moved(expected),
        resolved=own.n,
        replicates=seeds,
        drift=drift.interval,
        regret=drift.regret,
        gain=drift.gain,
        detectable=drift.detectable,
        verdict=drift.verdict,
        note=drift.reason or _shapes_note(drift),
    )


def _shapes_note(drift: Drift) -> str:
    if drift.registration is None or drift.interval == drift.registration.interval:
        return ""
    optima = drift.target.interval.mean - drift.reference.interval.mean
    return (
        f"the arms' curves have different shapes: as a whole they moved by {drift.registration.interval}, "
        f"and their optima by {optima:+.2f}; the interval holds both"
    )


def _of_reference(fits: Fits, arm: Arm) -> ArmFound:
    own = fits.resolved(arm)
    optimum = fits.mean({name: at(fit) for name, fit in own.items()})
    note = left_out(fits, arm)
    return ArmFound(arm=arm, optimum=optimum, resolved=len(own), replicates=len(fits.by_arm[arm.label]), note=note)


def _of_cells(fits: Sequence[Fits], base: Arm, arm: Arm, tolerance: float, expected: float) -> ArmFound:
    """Judged from matched cells. Fewer than four may show that the optimum moves, but not that it stays."""
    alone = _of_reference(fits[0], arm)
    drift = drift_of(fits, base, arm, expected)
    verdict, notes = Verdict.INCONCLUSIVE, [alone.note]
    if drift.n:
        verdict = judge_interval(drift, tolerance)
    elif alone.resolved:
        notes.append(f"no replicate has an optimum in {base.label} too")
    repeats = fits[0].repeats(fits[0].shifts(base, arm))
    if verdict is Verdict.PASS and repeats < MIN_SEEDS:
        verdict = Verdict.INCONCLUSIVE
        notes.append(f"within the tolerance, but {repeats} of the {MIN_SEEDS} seeds or cells that a PASS needs")
    if abs(shape := shift_of_shape(fits[0], base, arm)) > tolerance / 2:
        notes.append(f"the arms' curves have different shapes: cubics move the drift by {shape:+.2f}")
    if all(fit.reason == "every value diverged" for fit in fits[0].by_arm[arm.label].values()):
        verdict = Verdict.FAIL
    regret, gain = regret_and_gain(fits[0], base, arm, expected)
    spread = drift.own_error * math.sqrt(drift.n) if drift.n >= MIN_SEEDS else math.inf
    return replace(
        alone,
        drift=drift,
        regret=regret,
        gain=gain,
        detectable=detectable_of(spread, (drift.n,), tolerance, drift.shared) if math.isfinite(spread) else math.inf,
        verdict=verdict,
        note="; ".join(filter(None, notes)),
    )
