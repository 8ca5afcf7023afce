"""Drift between two arms, in octaves of the base value: of the seeds' fitted optima, or of whole curves.

Optima are fitted by parabolas (``judge.optimum``), and whole curves are registered (``judge.registration``).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mue_check.judge.interval import Interval, Looks, look_level, looks_text, t_interval
from mue_check.judge.optimum import (
    Curve,
    Optimum,
    fit_optimum,
    lowest_at_an_end,
    mean_minimum,
    parabola_loss,
    rounding_sd,
    same_losses,
    vertex_sd,
)
from mue_check.judge.power import detectable_drift, detectable_of
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
        """The drift of each seed that both arms have; of whole curves, pseudo-values of the jackknife."""
        return self.registration.by_seed if self.registration else _drifts(self.reference, self.target)

    @property
    def parabola(self) -> Interval:
        """The target's fitted optima minus the reference's, paired by seed."""
        return t_interval(list(_drifts(self.reference, self.target).values()), look_level(self.looks))

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
        return self.text()

    def text(self, knob: str = "") -> str:
        """The drift of the optimal value of that knob, or why there is none."""
        if self.reason is not None:
            return f"unresolved: {self.reason}"
        of = f" of {knob}" if knob else ""
        over = f" (95 % over looks {looks_text(self.looks)})" if len(self.looks) > 1 else ""
        if self.registration is None:
            best, moved = self.reference.interval, self.target.interval
            how = f" (optimum {2**best.mean:.2g} -> {2**moved.mean:.2g}, log2 {best} -> {moved})"
        else:
            walls = f", walls apart: {self.registration.walls}" if self.registration.misfit else ""
            how = f"{walls} (parabolas: {self.cross_check})"
        regret = f", regret {self.regret:.4f} nats" if math.isfinite(self.regret) else ""
        return (
            f"drift {self.interval} octaves{of} over {self.interval.n} seeds{over}{how}{regret}, "
            f"detectable drift {self.detectable:.2f} octave"
        )


def judge_drift(
    reference: Curve, target: Curve, tolerance: float, residual: float = 0.0, looks: Looks = (), *, whole: bool = False
) -> Drift:
    """PASS if the 95 % interval of the drift lies inside +-``tolerance`` octaves, FAIL if it lies outside.

    An arm that diverges at every value is FAIL too. An approximate law states a ``residual`` by which its optimum may
    move; a drift within that is RESIDUAL. ``looks`` are the numbers of seeds at which the question is judged; without
    them the number was fixed in advance.

    The drift is that of the optima, by a parabola for each seed; without an optimum there is no drift. ``whole``
    registers the whole curves instead, for valleys that are wide and no parabola. They need no optimum in every seed,
    and no seeds in common; an arm whose loss is lowest at an end of its grid may FAIL, but not PASS.
    """
    ours, theirs = fit_optimum(reference), fit_optimum(target)
    if whole:
        found = _of_curves(reference, target, tolerance, residual, looks)
    else:
        found = _of_optima(ours, theirs, tolerance, residual, looks)
    if any(mean_minimum(curve) < 0 for curve in (reference, target)):
        found = replace(found, verdict=Verdict.FAIL)
    regret, gain = _regret_and_gain(ours, theirs)
    return Drift(
        reference=ours,
        target=theirs,
        registration=found.registration,
        looks=looks,
        interval=found.interval,
        regret=regret,
        gain=gain,
        verdict=found.verdict,
        detectable=found.detectable,
        reason="; ".join(found.reasons) or None,
    )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What one estimator says; ``reasons`` are why it says nothing."""

    interval: Interval
    detectable: float = math.inf
    verdict: Verdict = Verdict.INCONCLUSIVE
    registration: Registration | None = None
    reasons: tuple[str, ...] = ()


def _of_optima(ours: Optimum, theirs: Optimum, tolerance: float, residual: float, looks: Looks) -> _Found:
    """The drift of the seeds' fitted optima."""
    drifts, level = list(_drifts(ours, theirs).values()), look_level(looks)
    if reasons := tuple(_unresolved(ours, theirs, looks)):
        return _Found(interval=t_interval(drifts, level), reasons=reasons)
    interval = t_interval(drifts, level, least_sd=_least_sd(drifts, ours, theirs))
    return _Found(
        interval=interval,
        detectable=detectable_drift(drifts, ours, theirs, tolerance + abs(residual), looks),
        verdict=judge_interval(interval, tolerance, residual=residual),
    )


def _of_curves(reference: Curve, target: Curve, tolerance: float, residual: float, looks: Looks) -> _Found:
    """The drift of the whole curves, by registration."""
    if reasons := tuple(_unusable(reference, target, looks)):
        return _Found(interval=t_interval([], look_level(looks)), reasons=reasons)
    registration = register(reference, target, look_level(looks))
    interval = registration.interval
    verdict = judge_interval(interval, tolerance, residual=residual)
    if verdict is not Verdict.FAIL and (reasons := tuple(_at_an_end(reference, target))):
        return _Found(interval=t_interval([], look_level(looks)), registration=registration, reasons=reasons)
    spread = interval.own_error * math.sqrt(interval.n)
    return _Found(
        interval=interval,
        detectable=detectable_of(spread, looks or (interval.n,), tolerance + abs(residual), interval.shared),
        verdict=verdict,
        registration=registration,
    )


def _drifts(ours: Optimum, theirs: Optimum) -> dict[int, float]:
    """Of the fitted optima, by the seeds that both arms have."""
    return {seed: theirs.by_seed[seed] - ours.by_seed[seed] for seed in ours.by_seed if seed in theirs.by_seed}


def _unresolved(ours: Optimum, theirs: Optimum, looks: Looks) -> Iterator[str]:
    """Why the seeds' optima have no drift."""
    seeds = len(_drifts(ours, theirs))
    yield from (found := _reasons(ours, theirs))
    if not found and seeds < MIN_SEEDS:
        yield f"{seeds} seeds in common, at least {MIN_SEEDS} are needed"
    elif not found and looks and seeds not in looks:
        yield f"{seeds} seeds in common, but it is to be judged at {looks_text(looks)}"


def _least_sd(drifts: Sequence[float], reference: Optimum, target: Optimum) -> float:
    """The standard error of one drift by its fits, where the seeds differ by no more than rounding; else 0.

    It is no bound for seeds that do differ: it contains how far a curve is from a parabola, which cancels in a drift,
    and exceeds the spread of the seeds in 87 of 119 measured drifts.
    """
    if float(np.std(drifts, ddof=1)) > math.hypot(rounding_sd(reference), rounding_sd(target)):
        return 0.0
    return math.hypot(vertex_sd(reference), vertex_sd(target))


def _unusable(reference: Curve, target: Curve, looks: Looks) -> Iterator[str]:
    """Why the curves cannot be registered."""
    for arm, curve in (("reference", reference), ("target", target)):
        if mean_minimum(curve) < 0:
            yield f"{arm}: every value diverged"
        elif twins := same_losses(curve.seeds, curve.usable):
            yield f"{arm}: {twins}"
    seeds = min(len(reference.seeds), len(target.seeds))
    if seeds < MIN_SEEDS:
        yield f"{seeds} seeds a side, at least {MIN_SEEDS} are needed"
    elif looks and seeds not in looks:
        yield f"{seeds} seeds a side, but it is to be judged at {looks_text(looks)}"


def _at_an_end(reference: Curve, target: Curve) -> Iterator[str]:
    """Which arms are still falling at an end of their grid, beyond which nothing was tried."""
    for arm, curve in (("reference", reference), ("target", target)):
        if at_an_end := lowest_at_an_end(curve):
            yield f"{arm}: {at_an_end}"


def _reasons(reference: Optimum, target: Optimum) -> list[str]:
    """Why the parabolas have no drift."""
    return [f"{arm}: {fit.reason}" for arm, fit in (("reference", reference), ("target", target)) if fit.reason]


def _regret_and_gain(ours: Optimum, theirs: Optimum) -> tuple[float, float]:
    """Means over the seeds that both have; NaN without parabolas."""
    seeds = list(_drifts(ours, theirs))
    if not seeds or not ours.resolved or not theirs.resolved:
        return math.nan, math.nan
    kept = [parabola_loss(theirs, seed, ours.by_seed[seed]) - theirs.loss_by_seed[seed] for seed in seeds]
    won = [ours.loss_by_seed[seed] - theirs.loss_by_seed[seed] for seed in seeds]
    return float(np.mean(kept)), float(np.mean(won))
