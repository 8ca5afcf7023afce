"""Drift of the loss-vs-LR optimum between two arms, in octaves of the base value: registration of their curves.

Parabolas through the seeds' minima are a cross-check, and give regret and gain.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from mue_check.judge.interval import PLAIN, Interval, Looks, Z, look_level, looks_text, t_interval
from mue_check.judge.optimum import Curve, Optimum, fit_optimum, mean_minimum, parabola_loss
from mue_check.judge.power import detectable_drift
from mue_check.judge.registration import Registration, register
from mue_check.judge.verdict import Verdict, judge_interval

MIN_SEEDS = 4
"""With fewer seeds the interval is too wide for a verdict."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Shift of the target's curve against the reference's. If it could not be resolved, ``reason`` says why.

    ``reference`` and ``target`` are the optima of the seeds' parabolas. ``regret`` is the loss, in nats per token, that
    the target gives away at the reference's optimum, by its own parabola. ``gain`` is the reference's loss minus the
    target's, each at its own optimum. Both are NaN where a parabola has no minimum. ``detectable`` is the smallest
    drift, in octaves, that would FAIL in 95 % of such measurements (``judge.power``). ``interval`` is the one that the
    verdict is read from: together with those of the other ``looks`` it covers 95 %.
    """

    reference: Optimum
    target: Optimum
    registration: Registration | None
    looks: Looks
    interval: Interval
    regret: float
    gain: float
    verdict: Verdict
    detectable: float
    reason: str | None

    @property
    def by_seed(self) -> Mapping[int, float]:
        """The drift by each seed that both arms have: pseudo-values of the jackknife."""
        return self.registration.by_seed if self.registration else {}

    @property
    def parabola(self) -> Interval:
        """The cross-check: the target's fitted optima minus the reference's, paired by seed."""
        return _parabola(self.reference, self.target, look_level(self.looks))

    @property
    def is_fitted(self) -> bool:
        """Whether parabolas have an optimum in both arms."""
        return self.reference.resolved and self.target.resolved

    @property
    def cross_check(self) -> str:
        """The drift of the parabolas, or why there is none."""
        return "; ".join(_reasons(self.reference, self.target)) or str(self.parabola)

    def settled(self, half_width: float) -> bool:
        """Whether more seeds are pointless: it fails, is unresolved, or is known to within ``half_width`` octaves.

        The precision is that of a plain interval, as nothing is decided by it.
        """
        if self.reason is not None or self.verdict is Verdict.FAIL:
            return True
        return self.verdict is not Verdict.INCONCLUSIVE and self.interval.plain_half_width <= half_width

    def __str__(self) -> str:
        if self.reason is not None:
            return f"unresolved: {self.reason}"
        over = f" (95 % over looks {looks_text(self.looks)})" if len(self.looks) > 1 else ""
        walls = f", walls apart: {self.registration.walls}" if self.registration and self.registration.misfit else ""
        regret = f", regret {self.regret:.4f} nats" if math.isfinite(self.regret) else ""
        return (
            f"drift {self.interval} octaves over {self.interval.n} seeds{over}{walls} (parabolas: {self.cross_check})"
            f"{regret}, detectable drift {self.detectable:.2f} octave"
        )


def judge_drift(reference: Curve, target: Curve, tolerance: float, residual: float = 0.0, looks: Looks = ()) -> Drift:
    """PASS if the 95 % interval of the drift lies inside +-``tolerance`` octaves, FAIL if it lies outside.

    An arm that diverges at every value is FAIL too. An arm whose loss is lowest at an end of its grid has shown no
    optimum: it may FAIL, but not PASS. An approximate law states a ``residual`` by which its optimum may move; a drift
    within that is RESIDUAL. ``looks`` are the numbers of seeds at which the question is judged; without them the number
    was fixed in advance. The arms need not have the same seeds; those of the smaller arm count.
    """
    ours, theirs = fit_optimum(reference), fit_optimum(target)
    lost = any(mean_minimum(curve) < 0 for curve in (reference, target))
    reason = "; ".join(_unusable(reference, target, looks))
    registration = None if reason else register(reference, target, look_level(looks))
    verdict, interval = Verdict.FAIL if lost else Verdict.INCONCLUSIVE, t_interval([], look_level(looks))
    if registration is not None:
        interval = _uncontradicted(registration.interval, ours, theirs)
        verdict = judge_interval(interval, tolerance, residual=residual)
        if verdict is not Verdict.FAIL:
            reason = "; ".join(_at_an_end(reference, target))
            verdict = Verdict.INCONCLUSIVE if reason else verdict
    if reason or registration is None:
        interval, detectable = t_interval([], look_level(looks)), math.inf
    else:
        detectable = detectable_drift(interval, tolerance + abs(residual), looks)
    regret, gain = _regret_and_gain(ours, theirs)
    return Drift(
        reference=ours,
        target=theirs,
        registration=registration,
        looks=looks,
        interval=interval,
        regret=regret,
        gain=gain,
        verdict=verdict,
        detectable=detectable,
        reason=reason or None,
    )


def _unusable(reference: Curve, target: Curve, looks: Looks) -> Iterator[str]:
    """Why the curves cannot be registered."""
    for arm, curve in (("reference", reference), ("target", target)):
        usable = curve.usable
        distinct, counts = np.unique(usable, axis=0, return_counts=True)
        if mean_minimum(curve) < 0:
            yield f"{arm}: every value diverged"
        elif len(distinct) < len(usable):
            twin = distinct[int(np.argmax(counts))]
            twins = [str(seed) for seed, row in zip(curve.seeds, usable, strict=True) if np.array_equal(row, twin)]
            yield f"{arm}: seeds {', '.join(twins)} have the same losses, so they count as one"
    seeds = min(len(reference.seeds), len(target.seeds))
    if seeds < MIN_SEEDS:
        yield f"{seeds} seeds a side, at least {MIN_SEEDS} are needed"
    elif looks and seeds not in looks:
        yield f"{seeds} seeds a side, but it is to be judged at {looks_text(looks)}"


def _parabola(ours: Optimum, theirs: Optimum, level: float = PLAIN) -> Interval:
    """The drift of the parabolas, paired by seed."""
    seeds = [seed for seed in ours.by_seed if seed in theirs.by_seed]
    return t_interval([theirs.by_seed[seed] - ours.by_seed[seed] for seed in seeds], level)


def _uncontradicted(registered: Interval, ours: Optimum, theirs: Optimum) -> Interval:
    """The interval, extended to that of the parabolas where the two have nothing in common.

    Curves of different shape have no one shift, and the one found may align what does not belong together.
    """
    fitted = _parabola(ours, theirs)
    if not (ours.resolved and theirs.resolved) or not (fitted.low > registered.high or fitted.high < registered.low):
        return registered
    off = max(registered.mean - fitted.low, fitted.high - registered.mean)
    return replace(registered, low=registered.mean - off, high=registered.mean + off, shared=off / Z)


def _at_an_end(reference: Curve, target: Curve) -> Iterator[str]:
    """Which arms are still falling at an end of their grid, beyond which nothing was tried."""
    for arm, curve in (("reference", reference), ("target", target)):
        best = mean_minimum(curve)
        if best in (0, len(curve.values) - 1):
            end = "lowest" if best == 0 else "highest"
            yield f"{arm}: the loss is lowest at the {end} value tried, log2 {curve.x[best]:.2f}"


def _reasons(reference: Optimum, target: Optimum) -> list[str]:
    """Why the parabolas have no drift."""
    return [f"{arm}: {fit.reason}" for arm, fit in (("reference", reference), ("target", target)) if fit.reason]


def _regret_and_gain(ours: Optimum, theirs: Optimum) -> tuple[float, float]:
    """Means over the seeds that both have; NaN without parabolas."""
    seeds = [seed for seed in ours.by_seed if seed in theirs.by_seed]
    if not seeds or not ours.resolved or not theirs.resolved:
        return math.nan, math.nan
    kept = [parabola_loss(theirs, seed, ours.by_seed[seed]) - theirs.loss_by_seed[seed] for seed in seeds]
    won = [ours.loss_by_seed[seed] - theirs.loss_by_seed[seed] for seed in seeds]
    return float(np.mean(kept)), float(np.mean(won))
