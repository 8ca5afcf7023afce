"""Drift of the loss-vs-LR optimum between two arms, in octaves of the base learning rate, paired by seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mue_check.judge.interval import Interval, Looks, look_level, looks_text, t_interval
from mue_check.judge.optimum import (
    Curve,
    Optimum,
    fit_optimum,
    mean_minimum,
    parabola_loss,
    rounding_sd,
    vertex_sd,
)
from mue_check.judge.power import detectable_drift
from mue_check.judge.verdict import Verdict, judge_interval

MIN_SEEDS = 4
"""With fewer seeds the interval is too wide for a verdict."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Target optimum minus reference optimum. If it could not be resolved, ``reason`` says why.

    ``regret`` is the loss, in nats per token, that the target gives away at the reference's optimum, by its own fitted
    parabola. ``gain`` is the reference's loss minus the target's, each at its own optimum. ``detectable`` is the
    smallest drift, in octaves, that would FAIL in 95 % of such measurements (``judge.power``). ``interval`` is the one
    that the verdict is read from: together with those of the other ``looks`` it covers 95 %.
    """

    reference: Optimum
    target: Optimum
    by_seed: Mapping[int, float]
    looks: Looks
    interval: Interval
    regret: float
    gain: float
    verdict: Verdict
    detectable: float
    reason: str | None

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
        return (
            f"drift {self.interval} octaves over {self.interval.n} seeds{over} "
            f"(log2 LR* {self.reference.interval} -> {self.target.interval}), regret {self.regret:.4f} nats, "
            f"detectable drift {self.detectable:.2f} octave"
        )


def judge_drift(reference: Curve, target: Curve, tolerance: float, residual: float = 0.0, looks: Looks = ()) -> Drift:
    """PASS if the 95 % interval of the mean drift lies inside +-``tolerance`` octaves, FAIL if it lies outside.

    An arm that diverges at every value is FAIL too; without an optimum for another reason it is INCONCLUSIVE.
    An approximate law states a ``residual`` by which its optimum may move; a drift within that is RESIDUAL. ``looks``
    are the numbers of seeds at which the question is judged; without them the number was fixed in advance.
    """
    ours, theirs = fit_optimum(reference), fit_optimum(target)
    seeds = [seed for seed in ours.by_seed if seed in theirs.by_seed]
    by_seed = {seed: theirs.by_seed[seed] - ours.by_seed[seed] for seed in seeds}
    drifts = list(by_seed.values())
    reasons = [
        f"{arm}: {optimum.reason}" for arm, optimum in (("reference", ours), ("target", theirs)) if optimum.reason
    ]
    if not reasons and len(seeds) < MIN_SEEDS:
        reasons = [f"{len(seeds)} seeds in common, at least {MIN_SEEDS} are needed"]
    elif not reasons and looks and len(seeds) not in looks:
        reasons = [f"{len(seeds)} seeds in common, but it is to be judged at {looks_text(looks)}"]
    if reasons:
        every_value_diverged = any(mean_minimum(curve) < 0 for curve in (reference, target))
        return Drift(
            reference=ours,
            target=theirs,
            by_seed=by_seed,
            looks=looks,
            interval=t_interval(drifts, look_level(looks)),
            regret=math.nan,
            gain=math.nan,
            verdict=Verdict.FAIL if every_value_diverged else Verdict.INCONCLUSIVE,
            detectable=math.inf,
            reason="; ".join(reasons),
        )
    interval = t_interval(drifts, look_level(looks), least_sd=_least_sd(drifts, ours, theirs))
    kept = sum(parabola_loss(theirs, seed, ours.by_seed[seed]) - theirs.loss_by_seed[seed] for seed in seeds)
    won = sum(ours.loss_by_seed[seed] - theirs.loss_by_seed[seed] for seed in seeds)
    return Drift(
        reference=ours,
        target=theirs,
        by_seed=by_seed,
        looks=looks,
        interval=interval,
        regret=kept / len(seeds),
        gain=won / len(seeds),
        verdict=judge_interval(interval, tolerance, residual=residual),
        detectable=detectable_drift(drifts, ours, theirs, tolerance + abs(residual), looks),
        reason=None,
    )


def _least_sd(drifts: Sequence[float], reference: Optimum, target: Optimum) -> float:
    """The standard error of one drift by its fits, where the seeds differ by no more than rounding; else 0.

    It is no bound for seeds that do differ: it contains how far a curve is from a parabola, which cancels in a drift,
    and exceeds the spread of the seeds in 87 of 119 measured drifts.
    """
    if float(np.std(drifts, ddof=1)) > math.hypot(rounding_sd(reference), rounding_sd(target)):
        return 0.0
    return math.hypot(vertex_sd(reference), vertex_sd(target))
