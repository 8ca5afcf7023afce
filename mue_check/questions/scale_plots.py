"""Figures of activation scales along a ladder."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from mue_check.judge.law import Law, LawResult, Rung, log2_levels
from mue_check.judge.verdict import Verdict
from mue_check.questions.comparison import Comparison
from mue_check.questions.display import Palette, heading
from mue_check.report.format import interval_text
from mue_check.report.palette import (
    BAND,
    BAND_ALPHA,
    QUIET,
    WIDTH,
    house_style,
    plain,
    shorten,
)

_PANELS = 2
"""Panels side by side: a law's statement needs the width."""
_MOST = 12
"""Panels in one figure; those that are not PASS come first."""
_TICKS = 34
"""Characters of tick labels that fit under a panel without rotation."""


def drawn_laws(results: Sequence[LawResult]) -> list[LawResult]:
    """The laws that get a panel: those of activations, and of weights those that are not PASS."""
    chosen = [r for r in results if r.verdict is not Verdict.PASS or not r.law.coordinate.startswith("weight.")]
    chosen.sort(key=lambda r: r.verdict is Verdict.PASS)
    kept = chosen[:_MOST]
    return [r for r in results if r in kept]


def plot_laws(c: Comparison, all_results: Sequence[LawResult], rungs: Sequence[Rung], palette: Palette) -> Figure:
    """One panel for each drawn law of a ladder: log2 of the quantity against log2 of the size, a point per seed.

    ``rungs`` are the sides of ``c``.
    """
    results = drawn_laws(all_results)
    rows = -(-len(results) // _PANELS)
    with house_style():
        figure = Figure(figsize=(WIDTH, 0.9 + 3.5 * rows), layout="constrained")
        for at, result in enumerate(results):
            _draw_law(figure.add_subplot(rows, _PANELS, at + 1), c, result, rungs, palette)
        handles = [
            Line2D([], [], color=QUIET, linewidth=1.6, label="fit with 95 % interval, or mean"),
            Line2D([], [], color=QUIET, linestyle="--", linewidth=1.2, label="the law; band: its tolerance"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        hidden = len(all_results) - len(results)
        rest = f"; {hidden} more in the table" if hidden else ""
        head = f"Activation scales along {heading(c)}: {len(results)} laws{rest}"
        figure.suptitle("\n".join(textwrap.wrap(head, 95)), x=0.01, ha="left")
    return figure


def _draw_law(axes: Axes, c: Comparison, result: LawResult, rungs: Sequence[Rung], palette: Palette) -> None:
    law, sides = result.law, c.sides
    x, sized = _positions([float(side.size) for side in sides], law)
    # zeros and what is not finite have no place on a log scale; the verdict reports them
    levels = [values[np.isfinite(values)] for values in (log2_levels(law, rung) for rung in rungs)]
    for side, at, values in zip(sides, x, levels, strict=True):
        color = palette.of(c, side.label)
        axes.plot(np.full(values.shape, at), values, linestyle="", marker="o", color=color, alpha=0.6)
    middle = np.array([values.mean() if values.size else np.nan for values in levels])
    if law.form == "ratio":
        span = x[[0, -1]]
        _draw_lines(axes, span, [middle[0] + np.full(span.shape, off) for off in _allowed(law)])
        axes.plot(x, middle, color=QUIET, linewidth=1.6)
    elif sized:
        span = np.linspace(x.min(), x.max(), 3)
        height = float(np.nanmean(middle)) if np.isfinite(middle).any() else np.nan
        _draw_lines(axes, span, [height + slope * (span - x.mean()) for slope in _allowed(law)])
        if result.interval.n:
            ends = (result.interval.low, result.interval.high)
            if np.isfinite(ends).all():
                low, high = (height + slope * (span - x.mean()) for slope in ends)
                axes.fill_between(span, low, high, color=QUIET, alpha=0.25, linewidth=0)
            axes.plot(span, height + result.interval.mean * (span - x.mean()), color=QUIET, linewidth=1.6)
    _widen(axes, 1.0 if law.form == "exponent" else 6 * law.tolerance)
    crowded = sum(len(plain(side.label)) for side in sides) > _TICKS
    names = [shorten(side.label, 20) for side in sides]
    axes.set_xticks(x, names, fontsize=8.5, rotation=18 if crowded else 0, ha="right" if crowded else "center")
    axes.margins(x=0.12)
    axes.set_ylabel(f"log2 {'RMS' if law.quantity == 'rms' else 'RMS of the change'}")
    what = "slope" if law.form == "exponent" else f"log2 ratio, {plain(result.worst)}"
    measured = f"{what} {interval_text(result.interval)}: {result.verdict.value}"
    axes.set_title("\n".join([*textwrap.wrap(plain(law.statement), 60), measured]), fontsize=9)


def _positions(sizes: Sequence[float], law: Law) -> tuple[NDArray[np.float64], bool]:
    """log2 of the sizes for a slope through them; else, or where they are equal or have no log2, ranks."""
    if law.form == "exponent" and min(sizes) > 0 and len(set(sizes)) == len(sizes):
        return np.log2(sizes), True
    return np.arange(len(sizes), dtype=np.float64), False


def _allowed(law: Law) -> tuple[float, float, float]:
    return law.expected - law.tolerance, law.expected, law.expected + law.tolerance


def _draw_lines(axes: Axes, x: NDArray[np.float64], lines: Sequence[NDArray[np.float64]]) -> None:
    """The law with its tolerance."""
    axes.fill_between(x, lines[0], lines[2], color=BAND, alpha=BAND_ALPHA, linewidth=0)
    axes.plot(x, lines[1], color=QUIET, linestyle="--", linewidth=1.2)


def _widen(axes: Axes, least: float) -> None:
    """A y axis of at least ``least`` octaves, so that noise does not look like a slope."""
    low, high = axes.get_ylim()
    if high - low < least:
        axes.set_ylim((low + high - least) / 2, (low + high + least) / 2)
