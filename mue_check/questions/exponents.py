"""Exponents of batch and duration: how the optimal learning rate itself scales, beside the law and what others found.

A drift is what a law leaves over. Added to what the law prescribes it is the exponent of the optimum, which can be held
against any law.
"""

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from matplotlib.figure import Figure

from mue_check.judge.interval import Interval, look_level, t_interval
from mue_check.judge.trend import slopes_by_seed
from mue_check.questions.comparison import Comparison
from mue_check.questions.display import setting_of, together
from mue_check.questions.drift import DriftFinding
from mue_check.questions.question import Finding, Findings, QuestionKind, Summary
from mue_check.records import Store
from mue_check.report.format import in_words, interval_text, signed_text
from mue_check.report.palette import QUIET, TARGETS, WIDTH, draw_interval, house_style, plain
from mue_check.report.section import Part, Picture, Section
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


def _stated(ladder: str, what: str, low: float, high: float, source: str) -> Exponent:
    return Exponent(ladder, what, Interval((low + high) / 2, low, high, 0), source)


PUBLISHED = (
    _stated("batch_at_fixed_tokens", "law of Complete(d)P", 0.5, 0.5, "arXiv 2512.22382"),
    _stated("batch_at_fixed_tokens", "public runs of Step Law", 0.26, 0.45, "arXiv 2503.04715"),
    _stated("batch_at_fixed_steps", "law of Complete(d)P", 0.0, 0.0, "arXiv 2512.22382"),
    _stated("duration_at_fixed_batch", "law of Complete(d)P", -0.5, -0.5, "arXiv 2512.22382"),
    _stated("duration_at_fixed_batch", "public runs of Step Law", -0.05, 0.06, "arXiv 2503.04715"),
    _stated("duration_at_fixed_batch", "a fit", -0.35, -0.35, "arXiv 2601.05049"),
    _stated("duration_at_fixed_batch", "a rule in use", -0.32, -0.32, "arXiv 2603.28743"),
)
_LADDERS = tuple(dict.fromkeys(each.ladder for each in PUBLISHED))


@dataclass(frozen=True, kw_only=True)
class ExponentFinding(Finding):
    """The drifts of one ladder under one rule. ``prescribed`` and ``raw`` are exponents of the learning rate per
    doubling: what the rule prescribes, and where the optimum was found."""

    prescribed: float
    raw: Interval

    @property
    def verdict(self) -> None:
        """Nothing is judged."""

    @property
    def measured(self) -> str:
        """The exponent of the optimum."""
        return f"{interval_text(self.raw)} per doubling, prescribed {signed_text(self.prescribed)}"


class ExponentKind(QuestionKind):
    """The exponents of batch and duration."""

    label = "exponent"

    def find(self, store: Store, comparisons: Sequence[Comparison], known: Findings) -> tuple[ExponentFinding, ...]:
        """One for each ladder, corpus, rule and router."""
        return tuple(_exponents(store, together(known.of(DriftFinding))))

    def sections(self, summary: Summary) -> Iterator[Section]:
        """The table and its figure."""
        found = summary.of(ExponentFinding)
        if found:
            measured = "; ".join(f"{in_words(f.comparison.ladder)}, {f.comparison.rule}: {f.measured}" for f in found)
            yield Section(
                part=Part.ANSWERS,
                anchor="exponents",
                title="Exponents of batch and duration",
                text="The optimal learning rate goes with this power of the batch or the duration: what the rule "
                "prescribes plus the drift that is left.",
                tables=(exponent_table(found),),
                pictures=(Picture.of(("exponents",), f"Exponents. {measured}", plot_exponents(found)),),
            )


def _exponents(store: Store, drifts: Iterable[DriftFinding]) -> Iterator[ExponentFinding]:
    ladders: dict[tuple[str, ...], list[DriftFinding]] = {}
    for d in drifts:
        start, size = (side.size for side in d.comparison.sides)
        if d.comparison.ladder in _LADDERS and d.is_usual and d.drift.reason is None and size > start > 0:
            ladders.setdefault(setting_of(d.comparison), []).append(d)
    for found in ladders.values():
        first = found[0].comparison
        start = first.sides[0].size
        slopes = slopes_by_seed(start, [(d.side.size, d.drift) for d in found])
        level = min(look_level(d.drift.looks) for d in found)
        x = [math.log2(d.side.size / start) for d in found]
        rates = [math.log2(_rate(store, d)) for d in found]
        prescribed = sum(a * b for a, b in zip(x, rates, strict=True)) / sum(a * a for a in x)
        raw = t_interval([slope + prescribed for slope in slopes], level)
        yield ExponentFinding(comparison=first, prescribed=prescribed, raw=raw)


def _rate(store: Store, found: DriftFinding) -> float:
    """The target's factor of the learning rate over the reference's; all roles share it."""
    reference, target = (
        next(iter(store.read(side.cells[0]).cell.factors.values()))["lr"] for side in found.comparison.sides
    )
    return target / reference


def exponents(found: Iterable[ExponentFinding]) -> list[Exponent]:
    """Ladder by ladder: what was measured under each rule, then what others state."""
    rows = []
    for ladder in _LADDERS:
        ours = [f for f in found if f.comparison.ladder == ladder]
        for f in ours:
            c = f.comparison
            what = f"optimum under {c.rule}, which prescribes {signed_text(f.prescribed)}"
            rows.append(Exponent(ladder, what, f.raw, f"measured on {c.corpus}, {f.raw.n} seeds"))
        rows += [each for each in PUBLISHED if each.ladder == ladder] if ours else []
    return rows


def exponent_table(found: Sequence[ExponentFinding]) -> Table:
    """Measured, prescribed and published exponents."""
    return make_table(
        "Exponent of the optimal learning rate per doubling",
        exponents(found),
        {
            "axis": lambda row: in_words(row.ladder),
            "what": lambda row: row.what,
            "exponent [95 %]": lambda row: row.text,
            "source": lambda row: row.source,
        },
    )


def plot_exponents(found: Sequence[ExponentFinding]) -> Figure:
    """One row for each line of the table; ours are filled."""
    rows = exponents(found)[::-1]
    with house_style():
        figure = Figure(figsize=(WIDTH, 1.2 + 0.38 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=QUIET, linewidth=1, zorder=1)
        for at, row in enumerate(rows):
            color = TARGETS[_LADDERS.index(row.ladder) % len(TARGETS)] if row.interval.n else QUIET
            draw_interval(axes, row.interval, at, color, marker="o" if row.interval.n else "d")
            if at and row.ladder != rows[at - 1].ladder:
                axes.axhline(at - 0.5, color="#cccccc", linewidth=0.7, zorder=0)
        axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=8)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("octaves of learning rate per doubling; gray: published")
        axes.grid(visible=False, axis="y")
        figure.suptitle("Exponents of batch and duration", x=0.01, ha="left")
    return figure


def _label(row: Exponent) -> str:
    source = "" if row.interval.n else f", {row.source}"
    return "\n".join(textwrap.wrap(f"{in_words(row.ladder)}: {plain(row.what)}{source}", 60, max_lines=2))
