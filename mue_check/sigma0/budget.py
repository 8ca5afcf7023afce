"""The drift budget: what an uneven load of experts does to a tuned learning rate, foretold from a calibration.

The question is one model under this load against the same model under the uniform one. Then n_e = a p_e B, and the mean
of log2 sigma_0 shifts by gamma times the mean of log2(1 / (N p_e)) (``judge.sigma0``); the drift is the calibrated
line at that shift. A uniform load is the reference itself, so its drift is 0 whatever the line's intercept; any other
load gets the line as it was measured, with its intercept and scatter. A calibration for this question had best be led
through the origin (``fit_kappa(origin=True)``), where the two agree.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mue_check.errors import JudgeError, LoadError
from mue_check.judge.interval import Interval
from mue_check.judge.verdict import Verdict, judge_interval
from mue_check.loads import require_feasible
from mue_check.sigma0.calibration import Calibration, Gamma
from mue_check.sigma0.imbalance import Imbalance
from mue_check.sigma0.kappa import DIFFER
from mue_check.spec import Experts

THEORY = Gamma(mean=0.5, se=0.0, df=math.inf)
"""arXiv 2605.23893; content-blind routing has it."""
FEW_TOKENS = 1.0
"""A step: an expert with fewer is not trained by every batch."""
EVEN = 1e-9
"""Coefficient of variation."""
ROUNDING = 1e-3
"""Relative: a load that was written with a few digits."""
SWEEP_STEP = 0.75
"""Octaves between two points of a sweep (docs/choices.md)."""
SWEEP_POINTS = 5
"""The fewest that a parabola is fitted to (``judge.optimum``)."""


@dataclass(frozen=True, kw_only=True)
class ExpertTokens:
    """Tokens a step of one expert."""

    expert: int
    tokens: float

    def __str__(self) -> str:
        return f"{self.tokens:.4g} (expert {self.expert})"


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """``shift`` of log2 sigma_0 and ``drift`` of the optimum, in octaves, against the uniform load."""

    shift: Interval
    drift: Interval


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What one load does. ``routing`` is the calibrated one that ``forecast`` is for.

    ``bound`` is the forecast at gamma = 1/2, the theory's. ``dense_shift``: of log2 sigma_0 against the dense model of
    Bridge II, for information: no drift is foretold from it. ``verdict``: PASS keeps the tuned learning rate, FAIL
    moves it, INCONCLUSIVE asks for a sweep at ``sweep`` times the tuned rate.
    """

    imbalance: Imbalance
    busiest: ExpertTokens
    median: float
    rarest: ExpertTokens
    few: tuple[int, ...]
    dead: tuple[int, ...]
    routing: str
    forecast: Forecast
    bound: Forecast
    dense_shift: Interval
    tolerance: float
    verdict: Verdict
    sweep: tuple[float, ...]
    warnings: tuple[str, ...]


def make_budget(
    load: NDArray[np.float64], experts: Experts, batch: int, calibration: Calibration, tolerance: float = 0.5
) -> Budget:
    """For ``load`` (shares [N]) of ``experts`` at ``batch`` tokens a step; ``tolerance`` in octaves.

    Raises LoadError for a load that is infeasible, and JudgeError for a batch or a tolerance that is none.
    """
    if batch < 1:
        raise JudgeError(f"batch={batch}: must be a whole number of tokens, at least 1")
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise JudgeError(f"tolerance={tolerance:g}: must be a finite number of octaves above 0")
    if len(load) != experts.total:
        raise LoadError(f"the load has {len(load)} numbers for N={experts.total} experts: give one for each")
    shares = [float(share) for share in load / load.sum()]
    require_feasible(shares, activated=experts.activated, groups=experts.groups, rounding=ROUNDING)
    imbalance = Imbalance.of(load)
    tokens = experts.activated * batch * load / load.sum()
    ends = int(tokens.argmax()), int(tokens.argmin())
    busiest, rarest = (ExpertTokens(expert=e, tokens=float(tokens[e])) for e in ends)
    routing = routing_of(experts)
    gamma = calibration.gamma[routing]
    forecast = _forecast(gamma, imbalance, calibration)
    verdict = judge_interval(forecast.drift, tolerance)
    least = tokens[tokens > 0].min()
    reached = {
        "shortfall_bits": (imbalance.shortfall_bits,),
        "experts": (experts.total,),
        "activated": (experts.activated,),
        "tokens_per_expert": (least, tokens.max()),
        "batch": (batch,),
    }
    return Budget(
        imbalance=imbalance,
        busiest=busiest,
        median=float(np.median(tokens)),
        rarest=rarest,
        few=tuple(int(e) for e in np.flatnonzero((tokens > 0) & (tokens < FEW_TOKENS))),
        dead=tuple(int(e) for e in np.flatnonzero(tokens == 0)),
        routing=routing,
        forecast=forecast,
        bound=_forecast(THEORY, imbalance, calibration),
        dense_shift=gamma.times(math.log2(experts.total / experts.activated) + imbalance.shortfall_bits),
        tolerance=tolerance,
        verdict=verdict,
        sweep=_sweep(forecast.drift) if verdict is Verdict.INCONCLUSIVE else (),
        warnings=(*_left_ranges(reached, calibration), *_left_line(forecast.shift.mean, calibration)),
    )


def forecast_drift(
    load: NDArray[np.float64], experts: Experts, calibration: Calibration, measured: Interval
) -> Interval:
    """95 % interval for a drift of that load against the even one that is measured with the error of ``measured``."""
    gamma = calibration.gamma[routing_of(experts)]
    bits = Imbalance.of(load).shortfall_bits
    return calibration.kappa.predict(
        gamma.mean * bits,
        gamma.se * abs(bits),
        measured.standard_error,
        shift_df=gamma.df,
        drift_df=measured.n - 1,
    )


def routing_of(experts: Experts) -> str:
    """Which of the calibrated gammas is that of these experts."""
    return "content_blind" if experts.router == "content_blind" else "learned"


def _forecast(gamma: Gamma, imbalance: Imbalance, calibration: Calibration) -> Forecast:
    bits = imbalance.shortfall_bits
    shift = gamma.times(bits)
    if imbalance.variation < EVEN:
        return Forecast(shift=shift, drift=Interval(0.0, 0.0, 0.0, len(calibration.kappa.points)))
    drift = calibration.kappa.predict(shift.mean, gamma.se * abs(bits), shift_df=gamma.df)
    return Forecast(shift=shift, drift=drift)


def _sweep(drift: Interval) -> tuple[float, ...]:
    """Factors on the tuned learning rate that reach over the whole interval, half a step apart from its middle."""
    half = max(SWEEP_POINTS // 2, math.ceil(drift.half_width / SWEEP_STEP))
    return tuple(float(2 ** (drift.mean + SWEEP_STEP * i)) for i in range(-half, half + 1))


def _left_ranges(reached: Mapping[str, tuple[float, ...]], calibration: Calibration) -> list[str]:
    """One line for each measured range that is left."""
    words = {
        "shortfall_bits": "imbalance (bits that a typical expert is short)",
        "experts": "N experts",
        "activated": "a activated experts",
        "tokens_per_expert": "tokens a step of an expert",
        "batch": "batch (tokens a step)",
    }
    lines = []
    for name, values in reached.items():
        low, high = calibration.ranges[name]
        out = [value for value in values if not low <= value <= high and not math.isclose(value, low, abs_tol=1e-9)]
        if out:
            said = " and ".join(f"{value:.4g}" for value in out)
            lines.append(f"{words[name]}: {said} lies outside the measured {low:.4g} to {high:.4g}: extrapolated")
    return lines


def _left_line(shift: float, calibration: Calibration) -> list[str]:
    """Doubts about the line itself: a shift that it was not measured at, or ladders that are not one line."""
    kappa = calibration.kappa
    low, high = min(0.0, kappa.shifts[0]), max(0.0, kappa.shifts[1])
    lines = []
    if not low <= shift <= high:
        lines.append(
            f"shift of sigma_0 (octaves): {shift:+.2f} is outside the measured {low:+.2f} to {high:+.2f}: extrapolated"
        )
    if kappa.same_slope < DIFFER:
        lines.append(f"kappa: ladders differ in slope (p = {kappa.same_slope:.2g}), the interval is too narrow")
    return lines
