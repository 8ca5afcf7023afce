"""A study judged from its records, and the report of it: a loop over the kinds of question."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mue_check.errors import StoreError, unknown
from mue_check.judge.verdict import Verdict, meets
from mue_check.questions.asked import FOLDER, load_asked, unfinished_runs
from mue_check.questions.comparison import Comparison, load_comparisons, path_of, place
from mue_check.questions.conclusion import (
    conclusion,
    facts,
    not_as_expected,
    number_of,
    of_last_run,
    unfinished_text,
    unlisted_text,
    which_run,
    without_answer,
)
from mue_check.questions.costs import Costs, RungCost, keys_of
from mue_check.questions.display import count_text, ladder_name, question_columns, together
from mue_check.questions.question import Finding, Findings, JudgedKind, QuestionKind, Summary
from mue_check.records import Store
from mue_check.report.format import in_words, printable
from mue_check.report.section import Fold, Part, Report, Section
from mue_check.report.table import Cells, Row, Table, make_table
from mue_check.report.write import write_files

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


def summarize(root: Path, kinds: Sequence[QuestionKind], axes: Sequence[str]) -> Summary:
    """Judge every comparison under ``root``.

    StoreError, one line, when nothing was asked, when a cell is missing, or when a kind of question is unknown.
    """
    store, asked, loaded = Store(root), load_asked(root), load_comparisons(root)
    if not asked and not loaded:
        raise StoreError(f"{str(root)!r} holds no study: run `pytest suites/ --study DIR` with this folder first")
    _require_kinds({path_of(root, c.name): c for c in loaded}, kinds)
    _require_kinds({path_of(root, each.question.name, FOLDER): each.question for each in asked}, kinds)
    comparisons = tuple(sorted(loaded, key=lambda c: place(c, axes)))
    answers: list[tuple[QuestionKind, tuple[Finding, ...]]] = []
    known = Findings()
    for kind in kinds:
        found = kind.find(store, comparisons, known)
        answers.append((kind, found))
        known = Findings((*known.found, *found))
    return Summary(
        name=root.resolve().name,
        axes=tuple(axes),
        asked=tuple(sorted(asked, key=lambda each: place(each.question, axes))),
        comparisons=comparisons,
        answers=tuple(answers),
        costs=Costs.read(store, comparisons),
        environments=Counter(store.read(key).environment for key in keys_of(comparisons)),
        findings=known,
        unfinished=unfinished_runs(root),
    )


def _require_kinds(files: Mapping[Path, Comparison], kinds: Sequence[QuestionKind]) -> None:
    """StoreError for a question that no kind judges: it would be left out of the report."""
    known = [kind.kind for kind in kinds if isinstance(kind, JudgedKind)]
    for path, question in files.items():
        if question.kind not in known:
            raise StoreError(f"{str(path)!r}: {unknown('kind', question.kind, known)}")


def verdict_lines(summary: Summary) -> list[str]:
    """What a terminal shows: the headlines of every kind of question."""
    lines = [line for kind, _ in summary.answers for line in kind.headlines(summary)]
    return lines or [f"study {printable(summary.name)} has no drift"]


def write_report(root: Path, summary: Summary) -> Path:
    """Write report.html, report.md, figures and further files into the study; return the page's path."""
    extra = {name: values for kind, _ in summary.answers for name, values in kind.files(summary).items()}
    return write_files(root, report_of(summary), extra)


def report_of(summary: Summary) -> Report:
    """The report: sections of all kinds part by part, then how to read it, what it cost and how to run it again."""
    by_kind = {kind.label: tuple(kind.sections(summary)) for kind, _ in summary.answers}
    sections = list(not_as_expected(summary, {label: own[0].anchor for label, own in by_kind.items() if own}))
    sections += [without_answer(summary)] if summary.unanswered else []
    sections += [section for own in by_kind.values() for section in own]
    sections += [_how_to_read(summary), which_run(summary), *_measured_on(summary), _cost(summary), _run_again(summary)]
    return Report(
        name=summary.name,
        verdict=summary.verdict,
        conclusion=conclusion(summary),
        facts=facts(summary),
        lines=(*count_lines(summary), *looks_lines(summary.comparisons)),
        sections=tuple(sorted(sections, key=lambda section: section.part)),
    )


def count_lines(summary: Summary) -> list[str]:
    """What the report is of; then ``drift: 3 PASS, 1 INCONCLUSIVE``, one line for each kind of question."""
    lines = [f"whole study: {number_of(len(summary.questions), 'question')}{of_last_run(summary)}"]
    beside = {
        kind.label: sum(len(found.verdicts) for found in together(all_found) if not found.comparison.expected)
        for kind, all_found in summary.answers
    }
    for label, pairs in summary.verdicts.items():
        correct = sum(meets(verdict, expected) for verdict, expected in pairs)
        counts = f"{correct} of {len(pairs)} as expected" if label == "control" else count_text(v for v, _ in pairs)
        lines.append(
            f"{label}: {counts}" + (f"; {beside[label]} without an expected verdict" if beside.get(label) else "")
        )
    if not summary.verdicts:
        lines.append("nothing is judged: no question with an answer expects a verdict")
    if summary.unanswered:
        lines.append(f"no answer: {number_of(len(summary.unanswered), 'question')}")
    if summary.unfinished:
        lines.append(unfinished_text(summary))
    return [*lines, unlisted_text(summary)] if summary.unlisted else lines


def looks_lines(comparisons: Iterable[Comparison]) -> list[str]:
    """What to know of answers that were stored without their looks."""
    kinds = ("drift", "early_curve", "coordinates")
    without = sum(c.kind in kinds and not c.looks for c in comparisons)
    if not without:
        return []
    return [
        f"{without} answers are of a version that did not store at which numbers of seeds it looked: their 95 % holds "
        "only where that number was fixed in advance"
    ]


def _how_to_read(summary: Summary) -> Section:
    terms = {term: meaning for kind, _ in summary.answers for term, meaning in kind.terms.items()}
    return Section(
        part=Part.APPENDIX,
        anchor="verdicts",
        title="How to read a verdict",
        terms={**{verdict.value: text for verdict, text in _VERDICTS.items()}, **terms, "The title's verdict": _TITLE},
    )


def _measured_on(summary: Summary) -> Iterator[Section]:
    """Where the cells were measured, if that is more than one place or version."""
    if len(summary.environments) > 1:
        yield Section(
            part=Part.APPENDIX,
            anchor="environments",
            title="Measured on",
            text=f"The cells come from {len(summary.environments)} combinations of versions, device and processor: "
            "part of a difference between two models may be one between these.",
            tables=(environment_table(summary),),
        )


def environment_table(summary: Summary) -> Table:
    """The number of cells by versions, device and processor."""
    names = ("mue_check", "torch", "device", "processor")
    rows = tuple(
        Row(cells=(*(printable(getattr(where, name, "not stored")) for name in names), str(count)))
        for where, count in sorted(summary.environments.items(), key=lambda item: -item[1])
    )
    return Table(caption="Cells by environment", header=(*names, "cells"), rows=rows, numeric=(4,))


def _cost(summary: Summary) -> Section:
    return Section(
        part=Part.APPENDIX,
        anchor="cost",
        title="What it cost",
        text="A cell that several axes or rungs share counts in each of them, and once in the total.",
        tables=(axis_cost_table(summary),),
        folds=(Fold(title="Core-seconds by rung", tables=(rung_cost_table(summary),)),),
    )


def _run_again(summary: Summary) -> Section:
    commands = dict.fromkeys(printable(comparison.command) for comparison in summary.questions)
    return Section(part=Part.APPENDIX, anchor="again", title="Run again", commands=tuple(commands))


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
