"""Speed-up: how much sooner a target reaches the final loss of its reference, at the same hyperparameters. A finding:
wrong rules gain as much."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from mue_check.axes import Ladder, Rung
from mue_check.errors import MueCheckError
from mue_check.judge.speedup import Speedup, compare_learning
from mue_check.questions.display import Palette, along_ladders, figure_title, ladder_key, merged, question_columns
from mue_check.questions.question import Finding, JudgedKind
from mue_check.questions.summary import Summary
from mue_check.records import Store
from mue_check.report.format import times_text
from mue_check.report.palette import FONT, MARKERS, PANEL, QUIET, house_style, shorten
from mue_check.report.section import Part, Picture, Section
from mue_check.report.table import Cells, Table, make_table
from mue_check.study.arm import measure
from mue_check.study.comparison import Comparison, side_table
from mue_check.study.folder import Study, side_of

LONGER = 3
"""Times the task's own steps: a speed-up grows with the horizon."""
LOOKS, LOOKS_PER_OCTAVE = 12, 4
"""Evaluations before the last, and how many for each factor of two in steps."""
_BAND_REACH = 1.5
"""Octaves that an interval may add to the axis of a speed-up: an interval of two seeds would dwarf the lines."""

_TIMES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.35, 1.5, 1.75, 2, 2.5, 3, 4, 5, 7, 10, 20, 50)


@dataclass(frozen=True, kw_only=True)
class SpeedupFinding(Finding):
    """How many times faster the target reaches the reference's final loss. No value is right, so nothing is judged."""

    speedup: Speedup

    @property
    def exists(self) -> bool:
        """Whether there is a loss that both reach, in every seed."""
        return self.speedup.overall.n > 0


def ask_speed(study: Study, ladder: Ladder, target: Rung) -> SpeedupFinding:
    """Steps to the reference's final loss, reference over target, at the base values and a constant learning rate.

    MueCheckError when the two share no loss, because one of them did not learn.
    """
    rungs = (ladder.reference, target)
    question = study.question("speedup", study.name(ladder.name, target.label), ladder, 0.0, expected=None)
    with study.asking(question):
        sides = []
        for rung in rungs:
            arm = study.arm(ladder, rung)
            train = replace(arm.train, steps=LONGER * arm.train.steps, final_lr=1.0)
            arm = replace(arm, train=train)
            # geometric, as the speed-up is a ratio of steps
            looks = sorted({1, *(max(1, round(train.steps * 2 ** (-i / LOOKS_PER_OCTAVE))) for i in range(LOOKS + 1))})
            cell = arm.cell("learning_curve", [arm.base.lr], range(study.tier.seeds), looks)
            measure([cell], study.store)
            sides.append(side_of(rung, arm, [cell.key]))
        found = SPEED.judge(study.store, replace(question, sides=tuple(sides)))
        if not found.exists:
            raise MueCheckError(f"{ladder.name}: {rungs[0].label} and {target.label} reach no common loss")
        study.save(found.comparison)
    return found


class SpeedKind(JudgedKind[SpeedupFinding]):
    """Steps of the reference over steps of the target to the reference's final loss."""

    kind = "speedup"
    measurement = "learning_curve"
    label = "speed-up"

    def judge(self, store: Store, comparison: Comparison) -> SpeedupFinding:
        """Compare both learning curves."""
        reference, target = (side_table(store, side) for side in comparison.sides)
        speedup = compare_learning(reference, target)
        return SpeedupFinding(comparison=comparison, verdict=None, measured=str(speedup), speedup=speedup)

    def sections(self, summary: Summary) -> Iterator[Section]:
        """The table, and a figure for each ladder."""
        if found := merged(summary.of(SpeedupFinding)):
            yield Section(
                part=Part.ANSWERS,
                anchor="speedup",
                title="Speed-up",
                text="Steps of the reference over steps of the target to the reference's final held-out loss (or the "
                "target's, if that is higher), at the same base values and a constant learning rate. It grows with the "
                "number of steps. A Dense MoE, 16e16a at the reference's width, should need as many steps as the "
                "reference. A finding, not a law: wrong rules gain as much.",
                tables=(speedup_table(found),),
                pictures=tuple(_pictures(found, Palette.of_study(summary.comparisons))),
            )


SPEED = SpeedKind()


def speedup_table(found: Sequence[SpeedupFinding]) -> Table:
    """Steps of the reference over those of the target."""
    columns: Cells[SpeedupFinding] = {
        **question_columns(found),
        "faster than": lambda s: s.comparison.sides[0].label,
        "steps": lambda s: str(s.speedup.horizons[-1]),
        "times [95 %]": lambda s: times_text(s.speedup.overall),
    }
    return make_table(
        "Convergence speed-up",
        found,
        columns,
        numeric=("steps",),
        note=lambda s: "" if s.exists else "no loss that all runs of both reach",
    )


def _pictures(found: Sequence[SpeedupFinding], palette: Palette) -> Iterator[Picture]:
    for key, group in along_ladders(s for s in found if s.exists):
        words = "; ".join(f"{s.side.label} {times_text(s.speedup.overall)} times" for s in group)
        yield Picture.of(("speedup", *key), f"{figure_title('Speed-up', key)}. {words}", plot_speedups, group, palette)


def plot_speedups(found: Sequence[SpeedupFinding], palette: Palette) -> Figure:
    """How many times faster each target of a ladder is, against the number of steps; bands are over seeds."""
    c = found[0].comparison
    with house_style(FONT):
        figure = Figure(figsize=PANEL, layout="constrained")
        axes = figure.add_subplot()
        ends = [0.0]
        for at, f in enumerate(found):
            label = f.comparison.sides[-1].label
            color, horizons = palette.of(f.comparison, label), f.speedup.horizons
            mean, low, high = np.array([(i.mean, i.low, i.high) for i in f.speedup.by_horizon]).T
            low, high = np.maximum(low, mean - _BAND_REACH), np.minimum(high, mean + _BAND_REACH)
            axes.fill_between(horizons, low, high, color=color, alpha=0.15, linewidth=0)
            ends += [float(np.nanmin(low)), float(np.nanmax(high))]
            name = f"{shorten(label, 22)}: {times_text(f.speedup.overall)} times"
            axes.plot(horizons, mean, color=color, linewidth=1.6, marker=MARKERS[at % len(MARKERS)], label=name)
        axes.axhline(0, color=QUIET, linewidth=1)
        room = 0.1 * max(max(ends) - min(ends), 0.5)
        axes.set_ylim(min(ends) - room, max(ends) + room)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ticks = [times for times in _TIMES if min(ends) - room <= math.log2(times) <= max(ends) + room]
        axes.set_yticks([math.log2(times) for times in ticks], [f"{times:g}" for times in ticks])
        axes.set_xlabel("steps at a constant rate; bands: 95 % over seeds")
        axes.set_ylabel(f"steps of {shorten(c.sides[0].label, 16)} / steps of the target")
        axes.set_title(shorten(figure_title("Speed-up", ladder_key(c)), 58))
        axes.legend(fontsize=FONT - 1)
    return figure
