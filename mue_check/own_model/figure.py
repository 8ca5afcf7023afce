"""The figure of a coordinate check: every output and parameter against size, with the verdict on it."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mue_check.judge.verdict import Verdict
from mue_check.own_model.judge import Quantity, Row
from mue_check.own_model.report import ModelReport
from mue_check.report.palette import QUIET, TARGETS, WIDTH, house_style, plain, shorten

_PANELS = (
    ("outputs at initialization", ("output", "added"), ("RMS",)),
    ("change of outputs", ("output", "added"), ("change",)),
    ("parameters at initialization", ("parameter",), ("RMS",)),
    ("change of parameters (over their RMS)", ("parameter",), ("change", "change / RMS")),
)
_NAMED = 4
"""Lines of a panel that have a color and a name: those that are farthest off."""


def plot_report(report: ModelReport) -> Figure:
    """Four panels: log2 of each quantity against the size. Lines that fail are in color, all others gray."""
    with house_style():
        figure = Figure(figsize=(WIDTH, 8.5), layout="constrained")
        for at, (title, kinds, names) in enumerate(_PANELS):
            lines = [(row, q) for row in report.rows if row.kind in kinds for q in row.quantities if q.name in names]
            _draw(figure.add_subplot(2, 2, at + 1), title, lines, report)
        suspects = ", ".join(row.name for row in report.first_suspects)
        head = f"{report.verdict}: {report.axis}, {report.seeds} seeds" + (
            f"; look first at {suspects}" * bool(suspects)
        )
        figure.suptitle("\n".join(textwrap.wrap(plain(head), 95)), x=0.01, ha="left")
    return figure


def _draw(axes: Axes, title: str, lines: Sequence[tuple[Row, Quantity]], report: ModelReport) -> None:
    failed = sorted((pair for pair in lines if pair[1].verdict is Verdict.FAIL), key=lambda pair: -pair[1].off)
    colors = {id(q): color for (_, q), color in zip(failed[:_NAMED], TARGETS, strict=False)}
    for row, q in lines:
        if q.levels.size == 0:
            continue
        levels = np.where(np.isfinite(q.levels), q.levels, np.nan).mean(axis=0)
        color, bad = colors.get(id(q), QUIET), q.verdict is Verdict.FAIL
        label = shorten(row.name, 40) if id(q) in colors else None
        style = {"linewidth": 2.0, "marker": "o"} if bad else {"linewidth": 0.8, "alpha": 0.6}
        axes.plot(report.sizes, levels, color=color, label=label, **style)
    axes.set_xscale("log", base=2)
    axes.set_xticks(report.sizes, [f"{size:g}" for size in report.sizes])
    axes.minorticks_off()
    axes.set_xlabel(plain(report.axis))
    axes.set_ylabel("log2")
    judged = [q for _, q in lines if q.verdict is not None]
    says = f"{len(failed)} of {len(judged)} fail" if judged else "shown, not judged"
    axes.set_title(f"{title}: {says}")
    if colors:
        axes.legend(fontsize=8)
