"""Forecasts: whether the drift budget predicts the drifts under loads to which it was not fitted."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mue_check.axes import Ladder, Rung
from mue_check.judge.drift import Drift
from mue_check.judge.interval import Interval
from mue_check.judge.verdict import Verdict
from mue_check.questions.comparison import Comparison
from mue_check.questions.display import asked_columns
from mue_check.questions.drift import judge_stored_drift
from mue_check.questions.question import NO_FINDINGS, Finding, Findings, JudgedKind, Summary
from mue_check.questions.study import Study
from mue_check.records import Store
from mue_check.report.format import NONE, interval_text
from mue_check.report.palette import QUIET, TARGETS, WIDTH, house_style, shorten
from mue_check.report.section import Part, Picture, Section
from mue_check.report.table import Cells, Table, make_table
from mue_check.sigma0.budget import forecast_drift
from mue_check.sigma0.calibrate import calibrate, calibration_for
from mue_check.sigma0.calibration import PACKAGED, DriftCalibration
from mue_check.sigma0.ladders import experts_of
from mue_check.sigma0.shift import ask_sigma0_drift
from mue_check.sigma0.shift_report import heldout_cases
from mue_check.sigma0.style import cross
from mue_check.spec import parse_scenario

_COLOR = TARGETS[0]
"""That of learned routing, which all forecasts are about."""


@dataclass(frozen=True, kw_only=True)
class ForecastFinding(Finding):
    """A measured drift, and the interval ``predicted`` for such a measurement; None without a calibration."""

    drift: Drift
    predicted: Interval | None

    @property
    def verdict(self) -> Verdict:
        """PASS where the measured mean lies in the predicted interval, FAIL where not; open without either."""
        if self.drift.reason is not None or self.predicted is None:
            return Verdict.INCONCLUSIVE
        inside = self.predicted.low <= self.drift.interval.mean <= self.predicted.high
        return Verdict.PASS if inside else Verdict.FAIL

    @property
    def measured(self) -> str:
        """The prediction and the drift."""
        return f"predicted {self.predicted} octaves, measured: {self.drift}"


def judge_stored_forecast(
    store: Store, comparison: Comparison, calibration: DriftCalibration | None
) -> ForecastFinding:
    """Compare a stored drift with what the calibration predicts for its load."""
    drift = judge_stored_drift(store, comparison).drift
    experts = experts_of(parse_scenario(comparison.sides[-1].model).model)
    load = np.array(experts.target_load)
    return ForecastFinding(
        comparison=comparison,
        drift=drift,
        predicted=forecast_drift(load, experts, calibration, drift.interval) if calibration else None,
    )


def ask_forecast(study: Study, ladder: Ladder, target: Rung, calibration: DriftCalibration) -> ForecastFinding:
    """Measure the drift under a load that no fit uses, and compare it with the budget."""
    sides = ask_sigma0_drift(study, ladder, target).comparison.sides
    name = study.name("forecast", ladder.name, target.label)
    comparison = study.comparison("forecast", name, ladder, study.tolerance, sides, Verdict.PASS)
    study.keep(comparison)
    return judge_stored_forecast(study.store, comparison, calibration)


class ForecastKind(JudgedKind[ForecastFinding]):
    """Forecasts, and the calibration from which they and all budgets are made."""

    kind = "forecast"
    label = "forecast"
    cases: ClassVar = {"heldout_load_case": heldout_cases}

    def judge(self, store: Store, comparison: Comparison, known: Findings = NO_FINDINGS) -> ForecastFinding:
        """Predict with the packaged calibration."""
        return judge_stored_forecast(store, comparison, calibration_for(known, ()))

    def find(
        self, store: Store, comparisons: Sequence[Comparison], known: Findings = NO_FINDINGS
    ) -> tuple[ForecastFinding, ...]:
        """Predict with the study's own calibration, or the packaged one where the study has none."""
        calibration = calibration_for(known, comparisons)
        judge = _Calibrated(calibration)
        return tuple(judge.find(store, comparisons, known))
