"""Sections of a report that are about the whole study: answers that are wrong, open or missing, and the appendix."""

from collections.abc import Iterator, Mapping

from mue_check.judge.verdict import Verdict, meets
from mue_check.overview.conclusion import number_of, of_last_run
from mue_check.questions.axes_report import anchor_of
from mue_check.questions.display import ladder_name, question_columns
from mue_check.questions.drift import DriftFinding
from mue_check.questions.question import Finding
from mue_check.questions.scales import ScalesFinding
from mue_check.questions.summary import Summary
from mue_check.report.format import NONE, in_words, printable
from mue_check.report.section import Fold, Part, Section
from mue_check.report.table import Cells, Row, Table, make_table
from mue_check.study.asked import Unanswered
from mue_check.study.comparison import Comparison
from mue_check.study.costs import RungCost

_VERDICTS = {
    Verdict.PASS: "The whole 95 % interval lies within the tolerance.",
    Verdict.RESIDUAL: "The law is published as approximate and leaves a drift of known size (in brackets after the "
    "tolerance). The interval is not within the tolerance, but it is wholly within the tolerance of that drift: as the "
    "law says, and good enough where it was expected.",
    Verdict.FAIL: "The whole interval lies outside the tolerance, and outside the residual where the law leaves one.",
    Verdict.INCONCLUSIVE: "Neither: the interval crosses an edge, or there is no optimum to compare. More seeds or a "
    "wider grid decide it. Seeds that are allowed only afterwards weaken the 95 %, and the report then says so.",
}
_TITLE = (
    "The verdict of the whole study, over all its runs. FAIL when any question is answered against its expected "
    "verdict; INCONCLUSIVE when none is, and any is open or has no answer, or when nothing is judged. "
    "Findings, such as a speed-up, have no expected verdict and do not count."
)


def not_as_expected(summary: Summary, anchors: Mapping[str, str]) -> Iterator[Section]:
    """The answers against their expected verdict, each with a link to its place; then those that are open.

    ``anchors`` are those of the sections by the label of their kind.
    """
    wrong = [
        (kind.label, f)
        for kind, found in summary.answers
        for f in found
        if f.comparison.expected and f.verdict and not meets(f.verdict, f.comparison.expected)
    ]
    wrong.sort(key=lambda item: item[1].verdict is Verdict.INCONCLUSIVE)

    def link(item: tuple[str, Finding]) -> str:
        label, found = item
        if found.comparison.is_control:
            return "controls"
        in_strip = isinstance(found, DriftFinding | ScalesFinding) and found.comparison.axis not in summary.own_axes
        return anchor_of(found.comparison) if in_strip else anchors.get(label, "questions")

    columns: Cells[tuple[str, Finding]] = {
        "question": lambda item: item[1].comparison.name,
        "verdict": lambda item: str(item[1].verdict),
        "expected": lambda item: item[1].comparison.expected,
        "measured": lambda item: item[1].measured.splitlines()[0].removeprefix(f"{item[1].verdict}: "),
    }
    if wrong:
        table = make_table(number_of(len(wrong), "answer"), wrong, columns, link=link)
        yield Section(part=Part.FAILURES, anchor="failures", title="Not as expected", tables=(table,))


def without_answer(summary: Summary) -> Iterator[Section]:
    """The questions that raised, were interrupted, or whose answers are gone."""
    columns: Cells[Unanswered] = {
        "question": lambda u: u.comparison.name,
        "kind": lambda u: in_words(u.comparison.kind),
        "expected": lambda u: u.comparison.expected or NONE,
        "why": lambda u: u.reason,
    }
    if summary.unanswered:
        title = "Questions without an answer"
        yield Section(
            part=Part.FAILURES,
            anchor="unanswered",
            title=title,
            text="They raised an error, were interrupted, or their answers are gone. The study does not pass until "
            "they are asked again (Run again, below).",
            tables=(make_table(title, summary.unanswered, columns),),
        )


def appendix(summary: Summary) -> Iterator[Section]:
    """How to read a verdict, which run asked what, where the cells come from, what they cost, and how to run again."""
    terms = {term: meaning for kind, _ in summary.answers for term, meaning in kind.terms.items()}
    yield Section(
        part=Part.APPENDIX,
        anchor="verdicts",
        title="How to read a verdict",
        terms={**{verdict.value: text for verdict, text in _VERDICTS.items()}, **terms, "The title's verdict": _TITLE},
    )
    asked = question_table(summary)
    yield Section(
        part=Part.APPENDIX,
        anchor="questions",
        title="Which run asked what",
        text="A study collects the questions of all its runs, and this report is of all of them. The exit code of "
        "`pytest suites/` and its lines on the terminal are of one run only. A question that is asked again has the "
        "answer of its last run.",
        folds=(Fold(title=asked.caption, tables=(asked,), brief=True),),
    )
    if len(summary.environments) > 1:
        yield Section(
            part=Part.APPENDIX,
            anchor="environments",
            title="Measured on",
            text=f"The cells come from {len(summary.environments)} combinations of versions, device and processor: "
            "part of a difference between two models may be one between these.",
            tables=(environment_table(summary),),
        )
    yield Section(
        part=Part.APPENDIX,
        anchor="cost",
        title="What it cost",
        text="A cell that several axes or rungs share counts in each of them, and once in the total.",
        tables=(axis_cost_table(summary),),
        folds=(Fold(title="Core-seconds by rung", tables=(rung_cost_table(summary),)),),
    )
    commands = dict.fromkeys(printable(comparison.command) for comparison in summary.questions)
    yield Section(part=Part.APPENDIX, anchor="again", title="Run again", commands=tuple(commands))


def question_table(summary: Summary) -> Table:
    """Every question, its verdict, and the run that asked it last."""
    runs = {each.question.name: each.run for each in summary.asked}
    verdicts = {f.comparison.name: f.verdict.value for _, found in summary.answers for f in found if f.verdict}
    verdicts |= {u.comparison.name: "no answer" for u in summary.unanswered}
    columns: Cells[Comparison] = {
        "question": lambda c: c.name,
        "verdict": lambda c: verdicts.get(c.name, NONE),
        "expected": lambda c: c.expected or NONE,
        "asked last by run": lambda c: runs.get(c.name) or NONE,
        "last run": lambda c: "yes" if summary.last_run and runs.get(c.name) == summary.last_run else "",
    }
    title = f"{number_of(len(summary.questions), 'question')}{of_last_run(summary)}"
    return make_table(title, summary.questions, columns)


def environment_table(summary: Summary) -> Table:
    """The number of cells by versions, device and processor."""
    names = ("mue_check", "torch", "device", "processor")
    rows = tuple(
        Row(cells=(*(printable(getattr(where, name, "not stored")) for name in names), str(count)))
        for where, count in sorted(summary.environments.items(), key=lambda item: -item[1])
    )
    return Table(caption="Cells by environment", header=(*names, "cells"), rows=rows, numeric=(4,))


def axis_cost_table(summary: Summary) -> Table:
    """Core-seconds of each axis and in total."""
    costs = {in_words(axis): cost for axis, cost in summary.costs.by_axis(summary.comparisons).items()}
    rows = tuple(Row(cells=(name, f"{cost:.1f}")) for name, cost in {**costs, "total": summary.costs.total}.items())
    return Table(caption="Core-seconds by axis", header=("axis", "core-s"), rows=rows, numeric=(1,))


def rung_cost_table(summary: Summary) -> Table:
    """Core-seconds of each rung."""
    rungs = summary.costs.by_rung(summary.comparisons)
    columns_of_rung = question_columns(rungs, target=False)
    columns_of_rung.pop("value", None)  # all values of one rung count together
    cells: Cells[RungCost] = {
        **columns_of_rung,
        "axis": lambda cost: ladder_name(cost.comparison),
        "rung": lambda cost: cost.side.label,
        "model": lambda cost: cost.side.model,
        "core-s": lambda cost: f"{cost.core_seconds:.1f}",
    }
    return make_table("Core-seconds by rung", rungs, cells, numeric=("core-s",))
