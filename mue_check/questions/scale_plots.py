"""Figures of activation scales along a ladder: how far every law is off, from rung to rung."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mue_check.judge.law import LawResult, Rung, log2_levels
from mue_check.judge.verdict import Verdict
from mue_check.questions.comparison import Comparison
from mue_check.report.palette import (
    BAND,
    BAND_ALPHA,
    FONT,
    MARKERS,
    PANEL,
    QUIET,
    TARGETS,
    house_style,
    plain,
    shorten,
)

_NAMED = 5
"""Laws that are named; those that FAIL come first."""


def plot_laws(c: Comparison, results: Sequence[LawResult], rungs: Sequence[Rung]) -> Figure:
    """A line for each law: log2 of its quantity over what the law makes of the first rung's, which is 0 where it holds.

    Gray lines are of laws that PASS. The band is the widest tolerance.
    """
    wrong = sorted((r for r in results if r.verdict is not Verdict.PASS), key=lambda r: r.verdict is not Verdict.FAIL)
    at = np.arange(len(rungs))
    with house_style(FONT):
        figure = Figure(figsize=PANEL, layout="constrained")
        axes = figure.add_subplot()
        edge = np.max([_allowed(result, rungs) for result in results], axis=0)
        axes.fill_between(at, -edge, edge, color=BAND, alpha=BAND_ALPHA, linewidth=0)
        axes.axhline(0, color=QUIET, linewidth=1, linestyle="--")
        for result in results:
            if result not in wrong[:_NAMED]:
                axes.plot(at, _off(result, rungs), color=QUIET, linewidth=0.8, alpha=0.5, marker=".", markersize=3)
        for number, result in enumerate(wrong[:_NAMED]):
            color, marker = TARGETS[number % len(TARGETS)], MARKERS[number % len(MARKERS)]
            name = shorten(result.law.name, 28)
            axes.plot(at, _off(result, rungs), color=color, linewidth=1.6, marker=marker, markersize=4, label=name)
        low, high = axes.get_ylim()
        if high - low < 1:  # noise should not look like a slope
            axes.set_ylim((low + high - 1) / 2, (low + high + 1) / 2)
        axes.set_xticks(at, [plain(shorten(side.label, 14)) for side in c.sides])
        if sum(len(side.label) for side in c.sides) > 32:
            axes.tick_params(axis="x", rotation=18)
        axes.set_ylabel("log2(measured / law)")
        failed = sum(result.verdict is Verdict.FAIL for result in results)
        count = f"{failed} of {len(results)} laws FAIL" if failed else f"{len(results)} laws of scale"
        axes.set_title(f"{shorten(c.rule, 38)}: {count}")
        if wrong:
            axes.legend(fontsize=FONT - 1.5, loc="best", handlelength=1.4)
    return figure


def _off(result: LawResult, rungs: Sequence[Rung]) -> NDArray[np.float64]:
    """[rungs] octaves above what the law makes of the first rung, mean over seeds; NaN where a scale is zero."""
    levels = [values[np.isfinite(values)] for values in (log2_levels(result.law, rung) for rung in rungs)]
    means = np.array([values.mean() if values.size else np.nan for values in levels], dtype=np.float64)
    off: NDArray[np.float64] = means - means[0] - result.law.expected * _octaves(result, rungs)
    return off


def _allowed(result: LawResult, rungs: Sequence[Rung]) -> NDArray[np.float64]:
    if result.law.form == "ratio":
        return np.where(np.arange(len(rungs)) > 0, result.law.tolerance, 0.0)
    return result.law.tolerance * np.abs(_octaves(result, rungs))


def _octaves(result: LawResult, rungs: Sequence[Rung]) -> NDArray[np.float64]:
    """By what the law's expectation is multiplied at each rung: log2 of its size, or 1 for a ratio to the first."""
    if result.law.form == "ratio":
        return np.where(np.arange(len(rungs)) > 0, 1.0, 0.0)
    sizes = np.array([float(rung.size) for rung in rungs])
    return np.log2(sizes / sizes[0]) if (sizes > 0).all() else np.arange(len(rungs), dtype=np.float64)
