"""Tune once: whether every larger model of a ladder ends at a lower loss at the same base values (arXiv 2605.23893)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mue_check.axes import Ladder
from mue_check.judge.order import Order, judge_order
from mue_check.judge.verdict import Verdict
from mue_check.questions.display import in_unit_of, ladder_name, merged, question_columns
from mue_check.questions.question import Finding, JudgedKind
from mue_check.questions.scales import is_prescribed
from mue_check.questions.summary import Summary
from mue_check.records import Store
from mue_check.report.section import Part, Section
from mue_check.report.table import Cells, Table, make_table
from mue_check.study.comparison import Comparison, side_table, with_looks_note
from mue_check.study.folder import Study

AGAINST_GRANULARITY = "granularity_to_capacity"
"""The ladder from finer experts to as many of full width."""


@dataclass(frozen=True, kw_only=True)
class TuneOnceFinding(Finding):
    """The final losses along one ladder."""

    order: Order
    verdict: Verdict


def ask_tune_once(study: Study, ladder: Ladder) -> TuneOnceFinding:
    """Train all rungs to the end of the schedule at the task's base values. PASS is expected.

    Capacity against granularity is a finding: neither has to win.
    """
    is_expected = ladder.name != AGAINST_GRANULARITY and is_prescribed(ladder)
    return _ask(study, ladder, Verdict.PASS if is_expected else None)


def ask_tune_once_control(study: Study, ladder: Ladder) -> TuneOnceFinding:
    """The study's rule is one under which finer experts end higher: FAIL is expected."""
    return _ask(study, ladder, Verdict.FAIL, axis="control")


def _ask(study: Study, ladder: Ladder, expected: Verdict | None, *, axis: str = "") -> TuneOnceFinding:
    arms = [study.arm(ladder, rung) for rung in ladder.rungs]
    name, looks = study.name(axis or "tune_once", ladder.name), study.few_looks
    question = study.question("tune_once", name, ladder, 0.0, expected, axis=axis or None, looks=looks)
    return TUNE_ONCE.answer(study, question, ladder.rungs, arms)


class TuneOnceKind(JudgedKind[TuneOnceFinding]):
    """The order of the final losses along a ladder."""

    kind = "tune_once"
    measurement = "loss_grid"
    label = "tune once"

    def judge(self, store: Store, comparison: Comparison) -> TuneOnceFinding:
        """Compare the losses of all sides."""
        order = judge_order([side_table(store, side) for side in comparison.sides], comparison.looks)
        labels = " -> ".join(side.label for side in comparison.sides)
        measured = with_looks_note(f"{labels}: {in_unit_of([comparison], str(order))}", comparison)
        return TuneOnceFinding(comparison=comparison, verdict=order.verdict, measured=measured, order=order)

    def sections(self, summary: Summary) -> Iterator[Section]:
        """One table."""
        if found := merged(summary.of(TuneOnceFinding)):
            yield Section(
                part=Part.ANSWERS,
                anchor="tune-once",
                title="Tune once",
                text="Final held-out losses at the same base values: each larger model should end lower. A wrong rule "
                "can pass too, because more parameters make up for much.",
                tables=(tune_once_table(found),),
            )


TUNE_ONCE = TuneOnceKind()


def tune_once_table(found: Sequence[TuneOnceFinding]) -> Table:
    """Losses along each ladder, and their changes from each model to the next."""
    columns: Cells[TuneOnceFinding] = {
        **question_columns(found, target=False),
        "axis": lambda t: ladder_name(t.comparison),
        "models": lambda t: ", ".join(side.label for side in t.comparison.sides),
        in_unit_of((t.comparison for t in found), "loss, nats"): lambda t: ", ".join(
            f"{loss:.3f}" for loss in t.order.losses
        ),
        in_unit_of((t.comparison for t in found), "changes [95 %], nats"): lambda t: ", ".join(
            change.text(3) for change in t.order.changes
        ),
        "seeds": lambda t: str(t.order.changes[0].n),
        "verdict": lambda t: t.verdict.value,
    }
    return make_table("Tune once", found, columns, numeric=("seeds",))
