"""Sensitivity: what tells each rule or mutant from the right rule, ladder by ladder; predicted and measured drifts.

The right rule is the one that is expected to PASS. The others are compared with it.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mue_check.axes.ladder import BY_GROUP
from mue_check.judge.agreement import Agreement, Point, fit_agreement, mean_measured
from mue_check.judge.verdict import Verdict
from mue_check.questions.display import grouped, knob_name, merged
from mue_check.questions.drift import DriftFinding
from mue_check.questions.drift_report import blind_text
from mue_check.questions.question import Finding, QuestionKind
from mue_check.questions.scales import ScalesFinding, failed_laws
from mue_check.questions.summary import Summary
from mue_check.report.format import NONE, bounded_text, in_words, interval_text, number_text, signed_text
from mue_check.report.palette import BAND, BAND_ALPHA, MARKERS, QUIET, REFERENCE, TARGETS, error_bar, house_style
from mue_check.report.section import Part, Picture, Section
from mue_check.report.table import Row, Table, make_table
from mue_check.spec import is_diffusion


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """One rule or mutant on one ladder: ``overall`` is a drift of the learning rate, ``group`` one of a group of roles.

    Of several such drifts it is the one that tells most: a FAIL, then the largest prediction, then the largest target.
    """

    ladder: str
    rule: str
    is_right: bool
    overall: DriftFinding | None
    group: DriftFinding | None
    laws: ScalesFinding | None

    @property
    def drifts(self) -> list[DriftFinding]:
        """The drifts that were measured."""
        return [drift for drift in (self.overall, self.group) if drift]

    @property
    def fails_by_a_drift(self) -> bool:
        """Whether any of them FAILs."""
        return any(drift.verdict is Verdict.FAIL for drift in self.drifts)

    @property
    def answer(self) -> str:
        """What FAILs. If nothing does: "blind" if theory says that no measured drift could, else "nothing"."""
        found = {"drift": self.overall, "group drift": self.group, "laws": self.laws}
        fails = ", ".join(name for name, each in found.items() if each and each.verdict is Verdict.FAIL)
        if fails or self.is_right:
            return fails or "nothing"
        is_blind = self.drifts and all(map(blind_text, self.drifts))
        return "blind" if is_blind else "nothing"


class SensitivityKind(QuestionKind):
    """Predicted against measured drifts over a whole study: the headline of its report."""

    label = "sensitivity"

    def sections(self, summary: Summary) -> Iterator[Section]:
        """The figure and both tables, if the study has a rule or mutant other than the right rule."""
        rows = sensitivities(summary)
        if all(row.is_right for row in rows):
            return
        found = predicted_drifts(summary)
        fits = agreement_table(found)
        yield Section(
            part=Part.ANSWERS,
            anchor="sensitivity",
            title="What tells rules apart",
            text="A wrong rule moves an optimum by a drift that theory predicts. A measurement that cannot detect so "
            "small a drift is blind to it: its PASS says nothing.",
            lines=tuple(ladder_lines(rows)),
            tables=(sensitivity_table(rows), *([fits] if fits.rows else [])),
            pictures=(_picture(found),) if found else (),
        )


def sensitivities(summary: Summary) -> list[Sensitivity]:
    """One for each ladder and rule, the right rule first. Rules that coincide all along a ladder are one."""
    drifts = [d for d in _drifts(summary) if d.comparison.knob == "lr" or ":" in d.comparison.knob]
    laws = {(_ladder(f), f.comparison.rule): f for f in summary.of(ScalesFinding) if not f.comparison.is_control}
    rows: dict[object, Sensitivity] = {}
    for (ladder, rule), found in grouped(drifts, lambda d: (_ladder(d), d.comparison.rule)):
        row = Sensitivity(
            ladder=ladder,
            rule=rule,
            is_right=found[0].comparison.is_right,
            overall=max((d for d in found if d.comparison.knob == "lr"), key=_relevance, default=None),
            group=max((d for d in found if d.comparison.knob != "lr"), key=_relevance, default=None),
            laws=laws.get((ladder, rule)),
        )
        answers = [*found, *([row.laws] if row.laws else [])]
        cells = tuple(side.cells for each in answers for side in each.comparison.sides)
        first = rows.get((ladder, cells))
        rows[ladder, cells] = replace(first, rule=f"{first.rule}, {rule}") if first else row
    order = [row.ladder for row in rows.values()]
    return sorted(rows.values(), key=lambda row: (order.index(row.ladder), not row.is_right, row.rule))


def _drifts(summary: Summary) -> list[DriftFinding]:
    """The drifts of the study and of its positive controls, each once."""
    found: dict[object, DriftFinding] = {}
    for d in summary.of(DriftFinding):
        reference, target = d.comparison.sides
        if d.comparison.axis not in summary.own_axes and reference.label != target.label:
            found.setdefault((reference.cells, target.cells, d.comparison.rule, d.comparison.ladder), d)
    return list(found.values())


def _ladder(found: Finding) -> str:
    """Its ladder without the suffix of role groups; ladders of diffusion models name their corpus."""
    c = found.comparison
    where = f" on {c.corpus}" if is_diffusion(c.sides[-1].model) else ""
    return c.ladder.removesuffix(BY_GROUP) + where


def _relevance(found: DriftFinding) -> tuple[bool, float, int]:
    return found.verdict is Verdict.FAIL, abs(found.comparison.predicted or 0.0), found.side.size


def ladder_lines(rows: Sequence[Sensitivity]) -> Iterator[str]:
    """The ladders on which a drift tells a wrong rule from the right one, and the others."""
    telling, others = [], []
    for (ladder,), found in grouped(rows, lambda row: (row.ladder,)):
        wrong = [row for row in found if not row.is_right]
        caught = [row.rule for row in wrong if row.fails_by_a_drift]
        if caught and not any(row.fails_by_a_drift for row in found if row.is_right):
            telling.append(f"{in_words(ladder)} ({', '.join(caught)})")
        elif wrong:
            shifts = [d.comparison.predicted for row in wrong for d in row.drifts if d.comparison.predicted is not None]
            largest = signed_text(max(shifts, key=abs)) if shifts else "none"
            others.append(f"{in_words(ladder)} (largest predicted drift: {largest})")
    number = f"{len(telling)} of {len(telling) + len(others)} ladders"
    yield f"a drift tells a wrong rule from the right one on {number}: {'; '.join(telling) or 'none'}"
    if others:
        yield f"it does not on: {'; '.join(others)}"


def sensitivity_table(rows: Sequence[Sensitivity]) -> Table:
    """Rules on each ladder against drifts and laws, predicted and measured."""
    columns: dict[str, Callable[[Sensitivity], str]] = {
        "axis": lambda row: in_words(row.ladder),
        "rule or mutant": lambda row: row.rule,
        "drift: predicted": lambda row: _predicted(row.overall),
        "measured": lambda row: _measured(row.overall),
        "group drift: predicted": lambda row: _predicted(row.group),
        "measured (group)": lambda row: _measured(row.group),
        "laws that FAIL": lambda row: failed_laws(row.laws.results) if row.laws else NONE,
        "caught by": lambda row: row.answer,
    }
    return make_table("Drifts and laws, rule by rule", rows, columns)


def _predicted(found: DriftFinding | None) -> str:
    return NONE if found is None else signed_text(found.comparison.predicted)


def _measured(found: DriftFinding | None) -> str:
    if found is None:
        return NONE
    knob = "" if found.comparison.knob == "lr" else f"{knob_name(found.comparison.knob, short=True)}, "
    return f"{knob}{found.side.label}: {interval_text(found.drift.interval)} {found.drift.verdict}"


def predicted_drifts(summary: Summary) -> list[DriftFinding]:
    """Those with a prediction and an interval, except on targets where an approximate law leaves a drift as well."""
    found = _drifts(summary)
    approximate = {(d.comparison.ladder, d.side.label) for d in found if d.comparison.residual}
    return [
        d
        for d in merged(found)
        if d.comparison.predicted is not None
        and math.isfinite(d.drift.interval.half_width)
        and (d.comparison.ladder, d.side.label) not in approximate
    ]


def point_of(found: DriftFinding) -> Point:
    """The drift as a point of predicted and measured."""
    c = found.comparison
    return Point(
        predicted=c.predicted or 0.0,
        measured=found.drift.interval.mean,
        standard_error=found.drift.interval.standard_error,
        reference=c.sides[0].cells[0],  # a search begins with the same cell, however many seeds it needs
        group=_ladder(found),
    )


def right_experts(found: Iterable[DriftFinding]) -> list[DriftFinding]:
    """The right rule's drifts from a dense model to a mixture: all would be 0 if experts wanted the same value."""
    return [
        d
        for d in found
        if d.comparison.is_right and [",h=" in side.model for side in d.comparison.sides] == [False, True]
    ]


def agreement_table(found: Sequence[DriftFinding]) -> Table:
    """Slope and intercept of measured on predicted, of all knobs and of each; then the means of the right rule's
    experts."""
    rows = []
    for name, drifts in (("all knobs", found), *_by_knob(found)):
        if fit := fit_agreement([point_of(d) for d in drifts]):
            numbers = bounded_text(fit.slope), bounded_text(fit.intercept), number_text(fit.spread)
            rows.append((name, drifts, numbers))
    for name, drifts in _by_knob(right_experts(found)):
        mean = bounded_text(mean_measured([point_of(d) for d in drifts]))
        rows.append((f"right rule, dense to experts: {name}", drifts, (NONE, mean, NONE)))
    return Table(
        caption="Measured on predicted drift: the line through the points, and the mean of those at 0",
        header=("swept value", "points", "ladders", "slope [95 %]", "at 0 [95 %] (octaves)", "spread (octaves)"),
        rows=tuple(
            Row(cells=(name, str(len(drifts)), str(len(set(map(_ladder, drifts)))), *numbers))
            for name, drifts, numbers in rows
        ),
        numeric=(1, 2, 5),
    )


def _by_knob(found: Iterable[DriftFinding]) -> list[tuple[str, list[DriftFinding]]]:
    groups = grouped(found, lambda d: (d.comparison.knob,))
    return [(knob_name(knob), drifts) for (knob,), drifts in groups]


def _picture(found: Sequence[DriftFinding]) -> Picture:
    fit, experts = fit_agreement([point_of(d) for d in found]), right_experts(found)
    words = [f"{len(found)} drifts, predicted and measured"]
    if fit:
        words.append(f"slope {bounded_text(fit.slope)}, at 0 {bounded_text(fit.intercept)} octave")
    for name, drifts in _by_knob(experts):
        words.append(
            f"right rule, dense to experts, {name}: {bounded_text(mean_measured([point_of(d) for d in drifts]))}"
        )
    return Picture.of(
        ("sensitivity",), ". ".join(words), plot_predicted, found, [d.comparison.is_right for d in found], fit, words
    )


_SIZE = (7.0, 5.2)
_COLORS = (*TARGETS, REFERENCE)
_STEP = 0.035
"""Octaves between points of one prediction, which would otherwise hide each other."""


def plot_predicted(
    found: Sequence[DriftFinding], right: Sequence[bool], fit: Agreement | None, notes: Sequence[str]
) -> Figure:
    """One point for each drift: color and marker show the knob, and points of the right rule are open."""
    knobs = list(dict.fromkeys(d.comparison.knob for d in found))
    at = _separated([d.comparison.predicted or 0.0 for d in found])
    means = [d.drift.interval.mean for d in found]
    low, high = min(*at, *means, -1.0) - 0.3, max(*at, *means, 1.0) + 0.3
    with house_style():
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        for tolerance in sorted({d.comparison.tolerance for d in found}):
            axes.axhspan(-tolerance, tolerance, color=BAND, alpha=BAND_ALPHA, linewidth=0)
        axes.axline((0, 0), slope=1, color=QUIET, linewidth=1, linestyle="--", zorder=1)
        if fit:
            axes.axline((0, fit.intercept.mean), slope=fit.slope.mean, color=REFERENCE, linewidth=1.5, zorder=2)
        for x, d, is_right in zip(at, found, right, strict=True):
            color, marker = _look(knobs.index(d.comparison.knob))
            axes.errorbar(
                *(x, d.drift.interval.mean),
                yerr=error_bar(d.drift.interval),
                color=color,
                marker=marker,
                markersize=5.5,
                markerfacecolor="white" if is_right else color,
                linewidth=1,
                alpha=0.85,
                zorder=3,
            )
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel("predicted drift (octaves)")
        axes.set_ylabel("measured drift (octaves), 95 % intervals")
        handles = [_handle(knob_name(knob), *_look(i), "full") for i, knob in enumerate(knobs)]
        handles += [_handle("right rule", QUIET, "o", "none"), _handle("wrong rule or mutant", QUIET, "o", "full")]
        handles.append(Line2D([], [], color=QUIET, linestyle="--", label="predicted = measured"))
        if fit:
            handles.append(Line2D([], [], color=REFERENCE, label="fitted line"))
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8.5)
        figure.suptitle("\n".join(notes), x=0.01, ha="left", fontsize=9.5)
    return figure


def _look(at: int) -> tuple[str, str]:
    return _COLORS[at % len(_COLORS)], MARKERS[at % len(MARKERS)]


def _handle(label: str, color: str, marker: str, fill: str) -> Line2D:
    face = color if fill == "full" else "white"
    return Line2D([], [], color=color, marker=marker, markerfacecolor=face, linestyle="", label=label)


def _separated(predicted: Sequence[float]) -> list[float]:
    """The predictions for a figure: equal ones are spread a little, so that no point hides another."""
    keys = np.round(predicted, 1)
    total, seen = Counter(keys.tolist()), Counter[float]()
    places = []
    for value, key in zip(predicted, keys.tolist(), strict=True):
        step = min(_STEP, 0.5 / total[key])
        places.append(value + step * (seen[key] - (total[key] - 1) / 2))
        seen[key] += 1
    return places
