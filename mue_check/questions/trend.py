"""Trend: the drifts of one ladder as a line through its reference, extrapolated. Needs no further cells."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mue_check.judge.trend import Trend, judge_trend, slopes_by_seed
from mue_check.questions.display import Palette, figure_title, grouped, heading, merged, question_columns, setting_of
from mue_check.questions.drift import DriftFinding
from mue_check.questions.question import Finding, Findings, QuestionKind
from mue_check.questions.summary import Summary
from mue_check.records import Store
from mue_check.report.format import in_words, interval_text
from mue_check.report.palette import BAND, BAND_ALPHA, QUIET, WIDTH, house_style
from mue_check.report.section import Part, Picture, Section
from mue_check.report.table import Cells, Table, make_table
from mue_check.study.comparison import Comparison

TREND_LADDER, TREND_SIZE = "capacity", 1024.0
"""Experts are added last and by the hundred, more than a small machine can hold: there a trend is needed."""
_PANELS = 2


@dataclass(frozen=True, kw_only=True)
class TrendFinding(Finding):
    """The drifts of one ladder under one rule, as a line through its reference. ``comparison`` is the first of them."""

    drifts: tuple[DriftFinding, ...]
    trend: Trend


class TrendKind(QuestionKind):
    """Octaves of drift per doubling of the experts, extrapolated."""

    label = "trend"

    def find(self, store: Store, comparisons: Sequence[Comparison], known: Findings) -> tuple[TrendFinding, ...]:
        """One trend for each corpus, rule and router with two resolved drifts."""
        return tuple(_trends(merged(known.of(DriftFinding))))

    def sections(self, summary: Summary) -> Iterator[Section]:
        """The table and one figure."""
        if found := summary.of(TrendFinding):
            ladder = found[0].comparison.ladder
            measured = "; ".join(f"{t.comparison.corpus}, {t.comparison.rule}: {t.measured}" for t in found)
            yield Section(
                part=Part.ANSWERS,
                anchor="trend",
                title="Trend",
                text="The least-squares line through the reference and every target, seed by seed. The interval at the "
                "far end contains only the spread over seeds, not the uncertainty about whether the line continues.",
                tables=(trend_table(found),),
                pictures=(
                    Picture.of(
                        ("trend", ladder),
                        f"{figure_title('Trend', (ladder,))}. {measured}",
                        plot_trends,
                        found,
                        Palette.of_study(summary.comparisons),
                    ),
                ),
            )


def _trends(drifts: Iterable[DriftFinding]) -> Iterator[TrendFinding]:
    # the line runs through the reference, in log2 of the size
    usable = [
        d
        for d in drifts
        if d.comparison.ladder == TREND_LADDER and d.is_lr_drift
        if min(d.side.size, d.comparison.sides[0].size) > 0 and d.side.size != d.comparison.sides[0].size
    ]
    for _, found in grouped(usable, lambda d: setting_of(d.comparison)):
        first = found[0].comparison
        points = [(float(d.side.size), d.drift) for d in found]
        trend = judge_trend(float(first.sides[0].size), points, TREND_SIZE)
        if trend is not None:
            slope, at_size = interval_text(trend.slope, 3), interval_text(trend.at_size)
            measured = f"{slope} octave per doubling, {at_size} at {trend.size:g}, extrapolated"
            yield TrendFinding(comparison=first, verdict=None, measured=measured, drifts=tuple(found), trend=trend)


def trend_table(found: Sequence[TrendFinding]) -> Table:
    """Octaves of drift per doubling of the size, and the drift at TREND_SIZE."""
    columns: Cells[TrendFinding] = {
        **question_columns(found, target=False),
        "targets": lambda t: ", ".join(d.side.label for d in t.drifts),
        "octaves per doubling [95 %]": lambda t: interval_text(t.trend.slope, 3),
        f"drift at N = {TREND_SIZE:g} [95 %], extrapolated": lambda t: interval_text(t.trend.at_size),
        "seeds": lambda t: str(t.trend.slope.n),
    }
    return make_table(f"Trend along {in_words(TREND_LADDER)}", found, columns, numeric=("seeds",))


def plot_trends(found: Sequence[TrendFinding], palette: Palette) -> Figure:
    """One panel for each corpus, rule and router: drifts, each seed's line, and the mean's extrapolation."""
    columns = min(len(found), _PANELS)
    rows = -(-len(found) // columns)
    with house_style():
        figure = Figure(figsize=(WIDTH, 1.3 + 3.6 * rows), layout="constrained")
        for at, trend in enumerate(found):
            _draw(figure.add_subplot(rows, columns, at + 1), trend, palette)
        handles = [
            Line2D([], [], color=QUIET, linewidth=0.8, alpha=0.6, label="one seed"),
            Line2D([], [], color=QUIET, linewidth=1.8, label="mean"),
            Line2D([], [], color=QUIET, linewidth=1.8, linestyle="--", label="extrapolated"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        head = (
            f"Trend of the drift along {in_words(found[0].comparison.ladder)}\n"
            "The interval of the extrapolation contains only the spread over seeds, not the doubt whether the "
            "line continues."
        )
        figure.suptitle(head, x=0.01, ha="left", fontsize=10.5)
    return figure


def _draw(axes: Axes, found: TrendFinding, palette: Palette) -> None:
    c, size = found.comparison, found.comparison.sides[0].size
    first, end = math.log2(size), math.log2(found.trend.size)
    resolved = [d for d in found.drifts if d.drift.reason is None]
    measured = {math.log2(d.side.size): d for d in resolved}
    last = max(measured)
    axes.axhspan(-c.tolerance, c.tolerance, color=BAND, alpha=BAND_ALPHA, linewidth=0)
    axes.axhline(0, color=QUIET, linewidth=1, zorder=1)
    for slope in slopes_by_seed(size, [(d.side.size, d.drift) for d in resolved]):
        axes.plot([first, end], [0, slope * (end - first)], color=QUIET, linewidth=0.8, alpha=0.35)
    mean = found.trend.slope.mean
    axes.plot([first, last], [0, mean * (last - first)], color=QUIET, linewidth=1.8)
    axes.plot([last, end], [mean * (last - first), mean * (end - first)], color=QUIET, linewidth=1.8, linestyle="--")
    for x, d in measured.items():
        color = palette.of(d.comparison, d.side.label)
        axes.errorbar(x, d.drift.interval.mean, yerr=_bar(d.drift.interval.half_width), color=color, capsize=4)
        axes.plot(x, d.drift.interval.mean, marker="o", markersize=7, color=color, zorder=4)
    axes.plot(first, 0, marker="o", markersize=7, color=palette.of(c, c.sides[0].label), zorder=4)
    predicted = found.trend.at_size
    axes.errorbar(end, predicted.mean, yerr=_bar(predicted.half_width), color=QUIET, capsize=4, linestyle="")
    axes.plot(end, predicted.mean, marker="o", markersize=8, color=QUIET, markerfacecolor="white", zorder=4)
    ticks = {first: size} | {x: d.side.size for x, d in measured.items()} | {end: found.trend.size}
    axes.set_xticks(list(ticks), [f"{size:g}" for size in ticks.values()])
    axes.set_xlabel("experts N")
    axes.set_ylabel("drift (octaves)")
    axes.set_title(
        f"{heading(c)}\n{interval_text(found.trend.slope, 3)} octave per doubling\n"
        f"N = {found.trend.size:g}: {interval_text(predicted)}",
        fontsize=9,
    )


def _bar(half_width: float) -> float:
    return half_width if math.isfinite(half_width) else 0.0
