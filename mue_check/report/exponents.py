"""Exponents of the optimal learning rate, measured, prescribed and published: a table and a figure."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from mue_check.judge.interval import Interval
from mue_check.report.format import in_words, interval_text, signed_text
from mue_check.report.palette import QUIET, TARGETS, WIDTH, draw_interval, house_style, plain
from mue_check.report.table import Table, make_table


class Exponent(NamedTuple):
    """A row of the table: an exponent of the optimal learning rate per doubling, measured here or stated elsewhere.

    An ``interval`` of no seeds is the range of what a source states.
    """

    ladder: str
    what: str
    interval: Interval
    source: str

    @property
    def text(self) -> str:
        """The interval, the range, or the one number."""
        if self.interval.n:
            return interval_text(self.interval)
        ends = dict.fromkeys(map(signed_text, (self.interval.low, self.interval.high)))
        return " to ".join(ends)


def stated(ladder: str, what: str, low: float, high: float, source: str) -> Exponent:
    """A row for what a source states: one number, or the range from ``low`` to ``high``."""
    return Exponent(ladder, what, Interval((low + high) / 2, low, high, 0), source)


PUBLISHED = (
    stated("batch_at_fixed_tokens", "law of Complete(d)P", 0.5, 0.5, "arXiv 2512.22382"),
    stated("batch_at_fixed_tokens", "public runs of Step Law", 0.26, 0.45, "arXiv 2503.04715"),
    stated("batch_at_fixed_steps", "law of Complete(d)P", 0.0, 0.0, "arXiv 2512.22382"),
    stated("duration_at_fixed_batch", "law of Complete(d)P", -0.5, -0.5, "arXiv 2512.22382"),
    stated("duration_at_fixed_batch", "public runs of Step Law", -0.05, 0.06, "arXiv 2503.04715"),
    stated("duration_at_fixed_batch", "a fit", -0.35, -0.35, "arXiv 2601.05049"),
    stated("duration_at_fixed_batch", "a rule in use", -0.32, -0.32, "arXiv 2603.28743"),
)


def exponent_table(rows: Sequence[Exponent]) -> Table:
    """Measured, prescribed and published exponents."""
    return make_table(
        "Exponent of the optimal learning rate per doubling",
        rows,
        {
            "axis": lambda row: in_words(row.ladder),
            "what": lambda row: row.what,
            "exponent [95 %]": lambda row: row.text,
            "source": lambda row: row.source,
        },
    )


def plot_exponents(rows: Sequence[Exponent], title: str) -> Figure:
    """One row for each line of the table; ours are filled."""
    ladders, rows = list(dict.fromkeys(row.ladder for row in rows)), rows[::-1]
    with house_style():
        figure = Figure(figsize=(WIDTH, 1.2 + 0.38 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=QUIET, linewidth=1, zorder=1)
        for at, row in enumerate(rows):
            color = TARGETS[ladders.index(row.ladder) % len(TARGETS)] if row.interval.n else QUIET
            draw_interval(axes, row.interval, at, color, marker="o" if row.interval.n else "d")
            if at and row.ladder != rows[at - 1].ladder:
                axes.axhline(at - 0.5, color="#cccccc", linewidth=0.7, zorder=0)
        axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=8)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("octaves of learning rate per doubling; gray: published")
        axes.grid(visible=False, axis="y")
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def _label(row: Exponent) -> str:
    source = "" if row.interval.n else f", {row.source}"
    return "\n".join(textwrap.wrap(f"{in_words(row.ladder)}: {plain(row.what)}{source}", 60, max_lines=2))
