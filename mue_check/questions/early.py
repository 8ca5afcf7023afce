"""Early curve: whether a target falls behind its reference in the first steps, both at the base learning rate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from numpy.typing import NDArray

from mue_check.axes import Ladder, Rung
from mue_check.judge.early import TREND_TOLERANCE, EarlyComparison, compare_early, log2_ratio
from mue_check.judge.interval import t_quantile
from mue_check.judge.verdict import Verdict
from mue_check.questions.case import Options, Scope, TargetCase, target_cases
from mue_check.questions.display import Palette, along_ladders, figure_title, ladder_key, merged, question_columns
from mue_check.questions.question import Finding, JudgedKind
from mue_check.questions.summary import Summary
from mue_check.records import Store
from mue_check.report.format import interval_text
from mue_check.report.palette import FONT, MARKERS, PANEL, QUIET, house_style, shorten
from mue_check.report.section import Part, Picture, Section
from mue_check.report.table import Cells, Table, make_table
from mue_check.study.comparison import Comparison, side_table, with_looks_note
from mue_check.study.folder import Study

EARLY_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class EarlyFinding(Finding):
    """log2(target loss / reference loss), ``ratio`` [S seeds, T steps], at ``steps`` [T]."""

    early: EarlyComparison
    steps: NDArray[np.int64]
    ratio: NDArray[np.float64]


def ask_early_curve(study: Study, ladder: Ladder, target: Rung) -> EarlyFinding:
    """Compare the first steps of a rung with the reference's. PASS is expected."""
    rungs = (ladder.reference, target)
    arms = [study.arm(ladder, rung) for rung in rungs]
    if early := study.task(ladder).early:
        arms = [replace(arm, base=early) for arm in arms]
    steps = (min(EARLY_STEPS, arms[0].train.steps),)
    name = study.name("early", ladder.name, target.label)
    question = study.question("early_curve", name, ladder, TREND_TOLERANCE, Verdict.PASS, looks=study.few_looks)
    return EARLY.answer(study, question, rungs, arms, steps)


def early_cases(options: Options, scope: Scope) -> list[TargetCase]:
    """Targets that train like the reference: with another batch or duration no step corresponds to the reference's."""
    return [case for case in target_cases(options, scope) if "scales" in case.ladder.uses]


class EarlyKind(JudgedKind[EarlyFinding]):
    """The loss curves of the first steps."""

    kind = "early_curve"
    measurement = "early_curve"
    label = "early curve"
    cases: ClassVar = {"early_case": early_cases}

    def judge(self, store: Store, comparison: Comparison) -> EarlyFinding:
        """Compare both curves."""
        reference, target = (side_table(store, side) for side in comparison.sides)
        steps, ratio = log2_ratio(reference, target)
        early = compare_early(reference, target, comparison.looks)
        measured = with_looks_note(str(early), comparison)
        return EarlyFinding(
            comparison=comparison, verdict=early.verdict, measured=measured, early=early, steps=steps, ratio=ratio
        )

    def sections(self, summary: Summary) -> Iterator[Section]:
        """The table, and a figure for each ladder."""
        if found := merged(summary.of(EarlyFinding)):
            yield Section(
                part=Part.DETAILS,
                anchor="early",
                title="First steps",
                tables=(early_table(found),),
                pictures=tuple(_pictures(found, Palette.of_study(summary.comparisons))),
            )


EARLY = EarlyKind()


def early_table(found: Sequence[EarlyFinding]) -> Table:
    """log2 of target over reference loss in the first steps: level, and trend per doubling of the step."""
    columns: Cells[EarlyFinding] = {
        **question_columns(found),
        "level [95 %] (log2)": lambda e: interval_text(e.early.level, 3),
        "trend [95 %] (per doubling)": lambda e: interval_text(e.early.trend, 4),
        "verdict": lambda e: e.early.verdict.value,
    }
    return make_table("Early loss curves", found, columns, note=lambda e: e.early.reason or "")


def _pictures(found: Sequence[EarlyFinding], palette: Palette) -> Iterator[Picture]:
    for key, group in along_ladders(found):
        words = "; ".join(f"{e.side.label} trend {interval_text(e.early.trend, 4)} {e.early.verdict}" for e in group)
        alt = f"{figure_title('Early loss curves', key)}. {words}"
        yield Picture.of(("early", *key), alt, plot_early, group, palette)


def plot_early(found: Sequence[EarlyFinding], palette: Palette) -> Figure:
    """log2 of target over reference loss against the step, mean and 95 % band over seeds, every target of a ladder."""
    c = found[0].comparison
    with house_style(FONT):
        figure = Figure(figsize=PANEL, layout="constrained")
        axes = figure.add_subplot()
        for at, f in enumerate(found):
            label = f.comparison.sides[-1].label
            x, mean, color = f.steps + 1.0, f.ratio.mean(axis=0), palette.of(c, label)
            seeds = len(f.ratio)
            if seeds > 1:
                half = t_quantile(seeds - 1) * f.ratio.std(axis=0, ddof=1) / np.sqrt(seeds)
                axes.fill_between(x, mean - half, mean + half, color=color, alpha=0.15, linewidth=0)
            legend = f"{shorten(label, 18)}: {f.early.verdict.value}"
            axes.plot(
                x,
                mean,
                color=color,
                linewidth=1.6,
                label=legend,
                marker=MARKERS[at % len(MARKERS)],
                markevery=max(1, len(x) // 8),
                markersize=4,
            )
        axes.axhline(0, color=QUIET, linewidth=1)
        axes.set_xscale("log", base=2)
        last = max(float(f.steps.max()) for f in found) + 1
        axes.set_xlim(0.9, 1.15 * last)  # set here, because a curve that is not finite sets no limits
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_xlabel("step; bands: 95 % over seeds; below 0: ahead")
        axes.set_ylabel(f"log2(loss / loss of {shorten(c.sides[0].label, 12)})")
        axes.set_title(shorten(figure_title("First steps", ladder_key(c)), 58))
        axes.legend(fontsize=FONT - 1)
    return figure
