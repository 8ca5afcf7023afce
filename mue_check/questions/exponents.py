"""Exponents of batch and duration: how the optimal learning rate itself scales, next to the law and published values.

A drift is the change of the optimum that a law does not explain. The drift plus what the law prescribes is the exponent
of the optimum itself, which can be compared with any law.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mue_check.judge.interval import Interval
from mue_check.judge.trend import drift_slope
from mue_check.questions.display import grouped, merged, setting_of
from mue_check.questions.drift import DriftFinding
from mue_check.questions.question import Finding, Findings, QuestionKind
from mue_check.questions.summary import Summary
from mue_check.records import Store
from mue_check.report.exponents import PUBLISHED, Exponent, exponent_table, plot_exponents
from mue_check.report.format import in_words, interval_text, signed_text
from mue_check.report.section import Part, Picture, Section
from mue_check.study.comparison import Comparison

_TITLE = "Exponents of batch and duration"
_LADDERS = tuple(dict.fromkeys(each.ladder for each in PUBLISHED))


@dataclass(frozen=True, kw_only=True)
class ExponentFinding(Finding):
    """The drifts of one ladder under one rule. ``prescribed`` and ``raw`` are exponents of the learning rate per
    doubling: what the rule prescribes, and where the optimum was found."""

    prescribed: float
    raw: Interval


class ExponentKind(QuestionKind):
    """The exponents of batch and duration."""

    label = "exponent"

    def find(self, store: Store, comparisons: Sequence[Comparison], known: Findings) -> tuple[ExponentFinding, ...]:
        """One for each ladder, corpus, rule and router."""
        return tuple(_exponents(store, merged(known.of(DriftFinding))))

    def sections(self, summary: Summary) -> Iterator[Section]:
        """The table and its figure."""
        if found := summary.of(ExponentFinding):
            rows = exponents(found)
            measured = "; ".join(f"{in_words(f.comparison.ladder)}, {f.comparison.rule}: {f.measured}" for f in found)
            yield Section(
                part=Part.ANSWERS,
                anchor="exponents",
                title=_TITLE,
                text="The optimal learning rate goes with this power of the batch or the duration: what the rule "
                "prescribes plus the drift that is left.",
                tables=(exponent_table(rows),),
                pictures=(Picture.of(("exponents",), f"Exponents. {measured}", plot_exponents, rows, _TITLE),),
            )


def _exponents(store: Store, drifts: Iterable[DriftFinding]) -> Iterator[ExponentFinding]:
    usual = [d for d in drifts if d.comparison.ladder in _LADDERS and d.is_lr_drift and d.drift.reason is None]
    growing = [d for d in usual if d.side.size > d.comparison.sides[0].size > 0]
    for _, found in grouped(growing, lambda d: setting_of(d.comparison)):
        first = found[0].comparison
        start = first.sides[0].size
        x = [math.log2(d.side.size / start) for d in found]
        rates = [math.log2(_rate(store, d)) for d in found]
        prescribed = sum(a * b for a, b in zip(x, rates, strict=True)) / sum(a * a for a in x)
        raw = drift_slope(start, [(d.side.size, d.drift) for d in found]).moved(prescribed)
        measured = f"{interval_text(raw)} per doubling, prescribed {signed_text(prescribed)}"
        yield ExponentFinding(comparison=first, verdict=None, measured=measured, prescribed=prescribed, raw=raw)


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
