"""The drift budget: how an uneven load of experts moves a tuned learning rate, predicted from a calibration.

It compares one model under this load with the same model under the uniform load. An expert sees n_e = a p_e B tokens,
so the mean of log2 sigma_0 shifts by gamma times the mean of log2(1 / (N p_e)) (``sigma0.shift``), and the drift is the
calibrated line at that shift. The uniform load is the reference itself: its drift is 0. Any other load gets the line as
it was measured, with its scatter. A calibration fits its line through 0 (``fit_kappa(origin=True)``), where both agree.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mue_check.errors import JudgeError, LoadError
from mue_check.judge.interval import Interval
from mue_check.judge.verdict import Verdict, judge_interval, require_tolerance
from mue_check.loads import require_feasible
from mue_check.sigma0.calibration import DriftCalibration, Gamma, Range, Routing, routing_of
from mue_check.sigma0.imbalance import EVEN, Imbalance
from mue_check.sigma0.kappa import DIFFER
from mue_check.spec import Experts

THEORY = Gamma(mean=0.5, se=0.0, df=math.inf)
"""The theory's gamma (arXiv 2605.23893), which content-blind routing has."""
FEW_TOKENS = 1.0
"""Per step: an expert with fewer is not trained by every batch."""
ROUNDING = 1e-3
"""Relative error of a load that was written with a few digits."""
SWEEP_STEP = 0.75
"""Octaves between two points of a sweep (docs/choices.md)."""
MOST_TOKENS = 10**15
WIDEST = 100.0
"""Octaves. A wider interval comes from a calibration that says nothing."""
SWEEP_POINTS = 5
"""The fewest points to which a parabola is fitted (``judge.optimum``)."""
_QUANTITIES: Mapping[Range, str] = {
    "shortfall_bits": "imbalance (bits that a typical expert is short)",
    "experts": "N experts",
    "activated": "a activated experts",
    "tokens_per_expert": "tokens per step of an expert",
    "batch": "batch (tokens per step)",
}


@dataclass(frozen=True, kw_only=True)
class ExpertTokens:
    """Tokens per step of one expert."""

    expert: int
    tokens: float

    def __str__(self) -> str:
        return f"{self.tokens:.4g} (expert {self.expert})"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """``shift`` of log2 sigma_0 and ``drift`` of the optimum, in octaves, against the uniform load."""

    shift: Interval
    drift: Interval


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The budget of one load. ``forecast`` uses the gamma of ``routing``, ``bound`` the theory's 1/2.

    ``dense_shift``, of log2 sigma_0 against the dense model of Bridge II, is for information: no drift is predicted
    from it. ``verdict``: PASS keeps the tuned learning rate, FAIL moves it, INCONCLUSIVE asks for a sweep at ``sweep``
    times the tuned rate. ``few`` experts see less than one token per step, ``dead`` ones none.
    """

    imbalance: Imbalance
    busiest: ExpertTokens
    median: float
    rarest: ExpertTokens
    few: tuple[int, ...]
    dead: tuple[int, ...]
    routing: Routing
    forecast: Prediction
    bound: Prediction
    dense_shift: Interval
    tolerance: float
    verdict: Verdict
    sweep: tuple[float, ...]
    extrapolated: tuple[str, ...]
    warnings: tuple[str, ...]


def make_budget(
    load: NDArray[np.float64], experts: Experts, batch: int, calibration: DriftCalibration, tolerance: float = 0.5
) -> Budget:
    """Predict for ``load`` (shares [N]) of ``experts`` at ``batch`` tokens per step; ``tolerance`` in octaves.

    Raises LoadError for a load that is infeasible, and JudgeError for an impossible batch or tolerance.
    """
    if not 1 <= batch <= MOST_TOKENS:
        raise JudgeError(f"batch={batch}: must be a whole number of tokens, at least 1 and at most {MOST_TOKENS:g}")
    require_tolerance(tolerance)
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
    forecast = _predict(gamma, imbalance, calibration)
    verdict = judge_interval(forecast.drift, tolerance)
    least = tokens[tokens > 0].min()
    reached: dict[Range, tuple[float, ...]] = {
        "shortfall_bits": (imbalance.shortfall_bits,),
        "experts": (experts.total,),
        "activated": (experts.activated,),
        "tokens_per_expert": (least, tokens.max()),
        "batch": (batch,),
    }
    extrapolated = _out_of_range(reached, calibration)
    to_sweep = verdict is Verdict.INCONCLUSIVE or bool(extrapolated)
    return Budget(
        imbalance=imbalance,
        busiest=busiest,
        median=float(np.median(tokens)),
        rarest=rarest,
        few=tuple(int(e) for e in np.flatnonzero((tokens > 0) & (tokens < FEW_TOKENS))),
        dead=tuple(int(e) for e in np.flatnonzero(tokens == 0)),
        routing=routing,
        forecast=forecast,
        bound=_predict(THEORY, imbalance, calibration),
        dense_shift=gamma.times(math.log2(experts.total / experts.activated) + imbalance.shortfall_bits),
        tolerance=tolerance,
        verdict=verdict,
        sweep=_sweep(forecast.drift) if to_sweep else (),
        extrapolated=tuple(extrapolated),
        warnings=(*extrapolated.values(), *_line_warnings(forecast.shift.mean, calibration)),
    )


def forecast_drift(
    load: NDArray[np.float64], experts: Experts, calibration: DriftCalibration, measured: Interval
) -> Interval:
    """95 % interval for the drift of that load against the even one, if measured with the error of ``measured``."""
    gamma = calibration.gamma[routing_of(experts)]
    bits = Imbalance.of(load).shortfall_bits
    return calibration.kappa.predict(
        gamma.mean * bits, gamma.se * abs(bits), measured.standard_error, shift_df=gamma.df, drift_df=measured.n - 1
    )


def _predict(gamma: Gamma, imbalance: Imbalance, calibration: DriftCalibration) -> Prediction:
    bits = imbalance.shortfall_bits
    shift = gamma.times(bits)
    if imbalance.variation < EVEN:
        return Prediction(shift=shift, drift=Interval(0.0, 0.0, 0.0, len(calibration.kappa.points)))
    drift = calibration.kappa.predict(shift.mean, gamma.se * abs(bits), shift_df=gamma.df)
    if not abs(drift.low) + abs(drift.high) < WIDEST:
        raise JudgeError(f"the drift is predicted as {drift.low:.3g} to {drift.high:.3g} octaves, which says nothing")
    return Prediction(shift=shift, drift=drift)


def _sweep(drift: Interval) -> tuple[float, ...]:
    """Factors on the tuned learning rate that cover the whole interval."""
    half = max(SWEEP_POINTS // 2, math.ceil(drift.half_width / SWEEP_STEP))
    return tuple(float(2 ** (drift.mean + SWEEP_STEP * i)) for i in range(-half, half + 1))


def _out_of_range(reached: Mapping[Range, tuple[float, ...]], calibration: DriftCalibration) -> dict[Range, str]:
    """A warning for each measured range that the model leaves."""
    found: dict[Range, str] = {}
    for name, values in reached.items():
        low, high = calibration.range[name]
        out = [value for value in values if not low <= value <= high and not math.isclose(value, low, abs_tol=1e-9)]
        if out:
            numbers = " and ".join(f"{value:.4g}" for value in out)
            lies = "lie" if len(out) > 1 else "lies"
            found[name] = f"{_QUANTITIES[name]}: {numbers} {lies} outside the measured {low:.4g} to {high:.4g}"
    return found


def _line_warnings(shift: float, calibration: DriftCalibration) -> list[str]:
    """Doubts about the line itself: a shift outside the measured ones, or ladders whose slopes differ."""
    kappa = calibration.kappa
    low, high = min(0.0, kappa.shifts[0]), max(0.0, kappa.shifts[1])
    lines = []
    if not low <= shift <= high:
        lines.append(f"shift of sigma_0 (octaves): {shift:+.2f} is outside the measured {low:+.2f} to {high:+.2f}")
    if kappa.same_slope < DIFFER:
        lines.append(f"kappa: ladders differ in slope (p = {kappa.same_slope:.2g}), the interval is too narrow")
    return lines
