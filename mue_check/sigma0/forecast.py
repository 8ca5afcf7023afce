"""Forecasts: whether the drift budget predicts the drifts under loads to which it was not fitted."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mue_check.axes import Ladder, Rung
from mue_check.judge.drift import Drift
from mue_check.judge.interval import Interval
from mue_check.judge.verdict import Verdict
from mue_check.questions.display import question_columns
from mue_check.questions.drift import judge_stored_drift
from mue_check.questions.drift_report import DRIFT
from mue_check.questions.question import Finding, Findings, JudgedKind
from mue_check.questions.summary import Summary
from mue_check.records import Store
from mue_check.report.format import NONE, interval_text
from mue_check.report.palette import QUIET, TARGETS, WIDTH, house_style, shorten
from mue_check.report.section import Part, Picture, Section
from mue_check.report.table import Cells, Table, make_table
from mue_check.sigma0.budget import forecast_drift
from mue_check.sigma0.calibrate import calibrate, calibration_for
from mue_check.sigma0.calibration import PACKAGED, DriftCalibration
from mue_check.sigma0.gamma_plots import cross
from mue_check.sigma0.ladders import SIGMA0, experts_of
from mue_check.sigma0.shift import ask_sigma0_drift
from mue_check.sigma0.shift_report import load_cases
from mue_check.spec_text import parse_scenario
from mue_check.study.comparison import Comparison
from mue_check.study.folder import Study

_COLOR = TARGETS[0]
"""That of learned routing, which all forecasts are about."""


@dataclass(frozen=True, kw_only=True)
class ForecastFinding(Finding):
    """A measured drift, and the interval ``predicted`` for such a measurement; None without a calibration."""

    drift: Drift
    predicted: Interval | None
    verdict: Verdict


def compare_with_forecast(
    drift: Drift, comparison: Comparison, calibration: DriftCalibration | None
) -> ForecastFinding:
    """Compare a measured drift with what the calibration predicts for its load."""
    experts = experts_of(parse_scenario(comparison.sides[-1].model).model)
    load = np.array(experts.target_load)
    predicted = forecast_drift(load, experts, calibration, drift.interval) if calibration else None
    return ForecastFinding(
        comparison=comparison,
        verdict=forecast_verdict(drift, predicted),
        measured=f"predicted {predicted} octaves, measured: {drift}",
        drift=drift,
        predicted=predicted,
    )


def forecast_verdict(drift: Drift, predicted: Interval | None) -> Verdict:
    """PASS where the measured mean lies in the predicted interval, FAIL where not; open without either."""
    if drift.reason is not None or predicted is None:
        return Verdict.INCONCLUSIVE
    return Verdict.PASS if predicted.low <= drift.interval.mean <= predicted.high else Verdict.FAIL


def ask_forecast(study: Study, ladder: Ladder, target: Rung, calibration: DriftCalibration) -> ForecastFinding:
    """Measure the drift under a load that no fit uses, and compare it with the budget."""
    name = study.name("forecast", ladder.name, target.label)
    question = study.question("forecast", name, ladder, study.tolerance, Verdict.PASS)
    with study.asking(question):
        sides = ask_sigma0_drift(study, ladder, target).comparison.sides
        answer = replace(question, sides=sides)
        found = compare_with_forecast(judge_stored_drift(study.store, answer).drift, answer, calibration)
        study.save(answer)
    return found


class ForecastKind(JudgedKind[ForecastFinding]):
    """Forecasts, and the calibration from which they and all budgets are computed."""

    kind = "forecast"
    measurement = "loss_grid"
    label = "forecast"
    cases: ClassVar = {"heldout_load_case": partial(load_cases, use="heldout")}

    def judge(self, store: Store, comparison: Comparison) -> ForecastFinding:
        """Predict with the packaged calibration."""
        drift = judge_stored_drift(store, comparison).drift
        return compare_with_forecast(drift, comparison, calibration_for(Findings()))

    def find(self, store: Store, comparisons: Sequence[Comparison], known: Findings) -> tuple[ForecastFinding, ...]:
        """Predict with the calibration of this study, or with the packaged one if it has none."""
        found = super().find(store, comparisons, known)
        calibration = calibration_for(known) if found else None
        return tuple(compare_with_forecast(f.drift, f.comparison, calibration) for f in found)

    def sections(self, summary: Summary) -> Iterator[Section]:
        """The table and figure of forecasts, and where the calibration is."""
        found, lines = summary.of(ForecastFinding), _lines(summary)
        if lines:
            pictures = [
                Picture.of(("sigma0", "forecast"), f"Measured against predicted drift. {lines[0]}", plot, found)
            ]
            yield Section(
                part=Part.ANSWERS,
                anchor="budget",
                title="sigma_0: drift budget",
                lines=lines,
                tables=(forecast_table(found),) if found else (),
                pictures=tuple(pictures) if _drawn(found) else (),
            )

    def headlines(self, summary: Summary) -> list[str]:
        """How many forecasts hold, and where the calibration is."""
        return [f"sigma_0: {line}" for line in _lines(summary)]

    def files(self, summary: Summary) -> Mapping[str, Mapping[str, object]]:
        """The calibration, where the study has one."""
        calibration = calibrate(summary.findings)
        return {PACKAGED: calibration.to_json()} if calibration else {}


FORECAST = ForecastKind()


def _lines(summary: Summary) -> tuple[str, ...]:
    if SIGMA0 not in {c.axis for c in summary.comparisons}:
        return ()
    if calibrate(summary.findings):
        where = f"calibration: mue_check budget --calibration STUDY/{PACKAGED} --load LOAD --spec SPEC --batch TOKENS"
    else:
        where = "no calibration: it takes gamma of learned and of content-blind routing, and three shifts with drifts"
    return tuple(line for line in (forecast_text(summary.of(ForecastFinding)), where) if line)


def forecast_text(found: Sequence[ForecastFinding]) -> str:
    """``forecasts: 9 of 10 inside, median width 0.31 octave``, and how many drifts are compatible with 0."""
    judged = [(f, f.predicted) for f in found if f.predicted and f.verdict is not Verdict.INCONCLUSIVE]
    left = len(found) - len(judged)
    more = f"; {left} not resolved" if left else ""
    if not judged:
        return f"forecasts: none judged{more}" if found else ""
    inside = sum(f.verdict is Verdict.PASS for f, _ in judged)
    width = np.median([2 * predicted.half_width for _, predicted in judged])
    still = sum(f.drift.interval.low <= 0 <= f.drift.interval.high for f, _ in judged)
    return (
        f"forecasts: {inside} of {len(judged)} inside, median width {width:.2f} octave; "
        f"0 lies in {still} of the measured intervals{more}"
    )


def forecast_table(found: Sequence[ForecastFinding]) -> Table:
    """Held-out loads: the predicted interval for such a measurement, and the measured drift."""
    cells: Cells[ForecastFinding] = {
        **question_columns(found),
        "predicted [95 %] (octaves)": lambda f: interval_text(f.predicted) if f.predicted else NONE,
        DRIFT: lambda f: interval_text(f.drift.interval),
        "inside": lambda f: {Verdict.PASS: "yes", Verdict.FAIL: "no"}.get(f.verdict, NONE),
        "verdict": lambda f: f.verdict.value,
    }
    return make_table("Forecasts for loads that no fit uses", found, cells, note=_note)


def _note(found: ForecastFinding) -> str:
    if found.predicted is None:
        return "not predicted: this study's gamma and kappa make no calibration, and this version comes with none"
    return f"unresolved: {found.drift.reason}" if found.drift.reason else ""


def _drawn(found: Sequence[ForecastFinding]) -> list[tuple[ForecastFinding, Interval]]:
    return [(f, f.predicted) for f in found if f.predicted and f.drift.reason is None]


def plot(found: Sequence[ForecastFinding]) -> Figure:
    """Measured against predicted drift of each held-out load: on the diagonal they agree."""
    known = _drawn(found)
    with house_style():
        figure = Figure(figsize=(WIDTH, max(4.6, 2.2 + 0.34 * len(known))), layout="constrained")
        left, right = figure.subplots(1, 2)
        ends = [0.0]
        for row, (f, predicted) in enumerate(reversed(known)):
            measured, inside = f.drift.interval, f.verdict is Verdict.PASS
            cross(left, (predicted.mean, measured.mean), _COLOR, x=predicted, y=measured, solid=inside)
            right.barh(row, 2 * predicted.half_width, left=predicted.low, height=0.7, color=QUIET, alpha=0.16)
            right.plot([predicted.mean] * 2, [row - 0.35, row + 0.35], color=QUIET, linewidth=1.6)
            cross(right, (measured.mean, row), _COLOR, x=measured, solid=inside)
            ends += [v for i in (predicted, measured) for v in (i.low, i.high) if math.isfinite(v)]
        room = 0.06 * max(max(ends) - min(ends), 0.1)
        low, high = min(ends) - room, max(ends) + room
        left.plot([low, high], [low, high], color=QUIET, linewidth=1.2, linestyle="--")
        for axes in (left, right):
            axes.set_xlim(low, high)
            axes.axvline(0, color=QUIET, linewidth=0.8, zorder=1)
        left.axhline(0, color=QUIET, linewidth=0.8, zorder=1)
        left.set_ylim(low, high)
        left.set_xlabel("predicted drift (octaves)")
        left.set_ylabel("measured drift (octaves)")
        right.set_yticks(range(len(known)), [shorten(f.side.label, 18) for f, _ in reversed(known)], fontsize=9)
        right.set_ylim(-0.6, len(known) - 0.4)
        right.grid(visible=False, axis="y")
        right.set_xlabel("drift (octaves)")
        title = f"Loads that no fit uses, bars: 95 % interval\n{forecast_text(found)}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        handles: list[Line2D | Patch] = [
            Line2D([], [], color=_COLOR, marker="o", linestyle="", label="measured, inside"),
            Line2D([], [], color=_COLOR, marker="o", markerfacecolor="white", linestyle="", label="outside"),
            Patch(color=QUIET, alpha=0.3, label="predicted for such a measurement"),
            Line2D([], [], color=QUIET, linestyle="--", label="predicted = measured"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    return figure
