"""What the sigma_0 laboratory's questions found, read from a study's records."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mue_check.errors import CalibrationError
from mue_check.questions.comparison import Comparison, Side
from mue_check.questions.stored import judge_stored_drift, judge_stored_gammas, judge_stored_shift
from mue_check.records import Store
from mue_check.report.findings import DriftFinding, ForecastFinding, GammaFinding, ShiftFinding
from mue_check.sigma0.budget import routing_of
from mue_check.sigma0.calibrate import OF_LOAD, RULES_OWN, arm_of, points_of
from mue_check.sigma0.calibration import Calibration, read_calibration
from mue_check.sigma0.forecast import judge_forecast
from mue_check.sigma0.imbalance import Imbalance
from mue_check.sigma0.kappa import KappaFit, fit_kappa
from mue_check.sigma0.ladders import SIGMA0
from mue_check.spec import Experts, ModelSpec, parse_scenario


@dataclass(frozen=True, kw_only=True)
class KappaFits:
    """Lines of drift against shift: through the origin for the ladders of loads, which a budget uses, and beside it
    with an intercept c0 of the same, and of ``every`` ladder."""

    budget: KappaFit
    loads: KappaFit
    every: KappaFit


def judge_gamma(comparison: Comparison, store: Store) -> GammaFinding:
    """Gamma of one mixture."""
    return GammaFinding(
        comparison=comparison,
        gammas=judge_stored_gammas(store, comparison),
        model=_model(comparison.sides[0]),
    )


def judge_shift(comparison: Comparison, store: Store, drifts: Sequence[DriftFinding]) -> ShiftFinding:
    """The shift of sigma_0, with the drift of the same arm."""
    experts = _model(comparison.sides[-1]).feed_forward
    load = experts.target_load if isinstance(experts, Experts) else ()
    own = (d.drift for d in drifts if arm_of(d.comparison) == arm_of(comparison) and d.comparison.knob == "lr")
    return ShiftFinding(
        comparison=comparison,
        shift=judge_stored_shift(store, comparison),
        drift=next(own, None),
        imbalance=Imbalance.of(np.array(load)) if load else None,
        routing=routing_of(experts) if isinstance(experts, Experts) else "dense",
    )


def judge_forecasted(comparison: Comparison, store: Store, calibration: Calibration | None) -> ForecastFinding:
    """A drift against what the calibration foretells of it."""
    _, _, drift = judge_stored_drift(store, comparison)
    experts = _model(comparison.sides[-1]).feed_forward
    known = calibration is not None and isinstance(experts, Experts)
    return ForecastFinding(
        comparison=comparison,
        drift=drift,
        forecast=judge_forecast(drift, experts, calibration) if known else None,  # type: ignore[arg-type]
    )


def foretelling(own: Calibration | None) -> Calibration | None:
    """The study's own calibration, else the packaged one, else none."""
    if own is not None:
        return own
    try:
        return read_calibration()
    except CalibrationError:
        return None


def fit_kappas(shifts: Iterable[ShiftFinding]) -> KappaFits | None:
    """The lines of drift against shift; None where no arm has both."""
    found = [s for s in shifts if s.comparison.router == RULES_OWN]
    points = [point for s in found for point in points_of(s.comparison, s.shift, s.drift)]
    loads = [p for p in points if p.ladder in OF_LOAD]
    if not points:
        return None
    return KappaFits(budget=fit_kappa(loads, origin=True), loads=fit_kappa(loads), every=fit_kappa(points))


def command_of(comparisons: Sequence[Comparison]) -> str:
    """The command that filled the laboratory's part of the study: that of its first question, without the test."""
    first = next((c.command for c in comparisons if c.axis == SIGMA0), "")
    return re.sub(r"'?([^\s':]+)::(?:[^']*'|\S*)", r"\1", first)


def _model(side: Side) -> ModelSpec:
    return parse_scenario(side.model).model
