"""The optimum of each size of a user's own model, and the exponent with which it goes with the size."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mue_check.judge.interval import Interval
from mue_check.judge.optimum import Optimum
from mue_check.judge.trend import drift_slope
from mue_check.questions.display import grouped, in_unit_of, setting_of
from mue_check.questions.drift import DriftFinding
from mue_check.questions.drift_report import drift_note, seeds_text
from mue_check.questions.question import Finding, Findings, QuestionKind
from mue_check.questions.summary import Summary
from mue_check.records import Store
from mue_check.report.format import NONE, in_words, interval_text, number_text
from mue_check.report.section import Part, Section
from mue_check.report.table import Row, Table
from mue_check.study.comparison import Comparison, Side

AXIS = "own_model"
"""``Comparison.axis`` of questions about a user's own model; the ladder names the user's axis."""


@dataclass(frozen=True, kw_only=True)
class OptimaFinding(Finding):
    """All drifts along one axis of a model, with the exponent in words. ``comparison`` is the first of them."""

    drifts: tuple[DriftFinding, ...]

    @property
    def table(self) -> Table:
        """Optimum, drift, regret and verdict of each size."""
        first = self.drifts[0]
        rows = [_row(self.comparison.sides[0], first.drift.reference, None)]
        rows += [_row(d.side, d.drift.target, d) for d in self.drifts]
        regret = in_unit_of((d.comparison for d in self.drifts), "regret, nats")
        header = ("size", "optimum [95 %]", "drift [95 %] (octaves)", regret, "seeds", "verdict")
        return Table(caption=self.measured, header=header, rows=tuple(rows), numeric=(3,))


def _row(side: Side, optimum: Optimum, found: DriftFinding | None) -> Row:
    at = optimum.interval
    rate = f"{2**at.mean:.3g} [{2**at.low:.3g}, {2**at.high:.3g}]" if optimum.resolved and at.n > 1 else NONE
    if found is None:
        return Row(cells=(side.label, rate, "", "", "", ""))
    drift = found.drift
    verdict = str(drift.verdict)
    cells = (side.label, rate, interval_text(drift.interval), number_text(drift.regret, 4), seeds_text(found), verdict)
    return Row(cells=cells, verdict=verdict, note=drift_note(found))


def optima_of(found: Iterable[Finding]) -> Iterator[OptimaFinding]:
    """One finding for each axis and model."""
    own = [d for d in found if isinstance(d, DriftFinding) and d.comparison.axis == AXIS]
    for _, drifts in grouped(own, lambda d: (*setting_of(d.comparison), d.comparison.tier)):
        c = drifts[0].comparison
        axis, exponent = in_words(c.ladder.removeprefix("own_")), interval_text(exponent_of(drifts))
        measured = f"optimal learning rate ~ {axis}^{exponent}, where a right rule has 0"
        yield OptimaFinding(comparison=c, verdict=None, measured=measured, drifts=tuple(drifts))


def exponent_of(drifts: Sequence[DriftFinding]) -> Interval:
    """a, where the optimal learning rate goes with the size to the power of a; without values if unresolved."""
    resolved = [(d.side.size, d.drift) for d in drifts if d.drift.reason is None]
    return drift_slope(drifts[0].comparison.sides[0].size, resolved)


class OptimaKind(QuestionKind):
    """The optima of users' own models."""

    label = "own optimum"

    def find(self, store: Store, comparisons: Sequence[Comparison], known: Findings) -> tuple[OptimaFinding, ...]:
        """From the drifts alone."""
        return tuple(optima_of(known.found))

    def sections(self, summary: Summary) -> Iterator[Section]:
        """One table for each model."""
        if found := summary.of(OptimaFinding):
            yield Section(
                part=Part.ANSWERS,
                anchor="own-optimum",
                title="Optimum of each size",
                text="The learning rate that was passed to the user's optimizer, with the exponent of its optimum "
                "against the size.",
                tables=tuple(each.table for each in found),
            )

    def headlines(self, summary: Summary) -> list[str]:
        """The exponent of each model."""
        return [f"{each.comparison.rule}: {each.measured}" for each in summary.of(OptimaFinding)]
