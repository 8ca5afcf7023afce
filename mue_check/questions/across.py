"""Across modalities: each corpus's own optimum of the reference, and those of its targets under the same rule."""

from collections.abc import Iterator, Sequence

from mue_check.questions.display import ladder_name
from mue_check.questions.drift import DriftFinding
from mue_check.questions.question import QuestionKind, Summary
from mue_check.report.format import interval_text
from mue_check.report.section import Part, Section
from mue_check.report.table import Cells, Table, make_table
from mue_check.spec import is_diffusion


class AcrossKind(QuestionKind):
    """The drifts of the right rule once more, with the optima themselves. Needs no further cells."""

    label = "across modalities"

    def sections(self, summary: Summary) -> Iterator[Section]:
        """The table, in a study of a diffusion model."""
        found = [
            d
            for d in summary.of(DriftFinding)
            if d.is_usual and d.comparison.is_right and d.drift.is_fitted and not d.drift.registration
        ]
        if any(is_diffusion(d.side.model) for d in found):
            yield Section(
                part=Part.ANSWERS,
                anchor="across",
                title="Same rule, own numbers",
                text="Each corpus has its own reference and its own optimum, which the rule carries to all targets.",
                tables=(across_table(found),),
            )


def across_table(found: Sequence[DriftFinding]) -> Table:
    """log2 of the optimal learning rate of each reference and target, in base values, corpus by corpus."""
    order = list(dict.fromkeys(d.comparison.corpus for d in found))
    columns: Cells[DriftFinding] = {
        "corpus": lambda d: d.comparison.corpus,
        "axis": lambda d: ladder_name(d.comparison),
        "reference": lambda d: d.comparison.sides[0].label,
        "its log2 LR* [95 %]": lambda d: interval_text(d.drift.reference.interval),
        "target": lambda d: d.side.label,
        "its log2 LR* [95 %], base value": lambda d: interval_text(d.drift.target.interval),
        "drift [95 %]": lambda d: interval_text(d.drift.interval),
        "verdict": lambda d: d.verdict.value,
    }
    return make_table(
        "Optimal learning rates across modalities",
        sorted(found, key=lambda d: order.index(d.comparison.corpus)),
        columns,
    )
