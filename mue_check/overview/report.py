"""A study judged from its records, and the report of it: a loop over the kinds of question."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mue_check.errors import StoreError, unknown
from mue_check.overview.conclusion import conclusion, count_lines, facts
from mue_check.overview.sections import appendix, not_as_expected, without_answer
from mue_check.questions.question import Finding, Findings, JudgedKind, QuestionKind
from mue_check.questions.summary import Summary
from mue_check.records import Store
from mue_check.report.format import printable
from mue_check.report.section import Report
from mue_check.report.write import write_files
from mue_check.study.asked import FOLDER, load_asked, unfinished_runs
from mue_check.study.comparison import Comparison, load_comparisons, path_of, report_order
from mue_check.study.costs import Costs, keys_of


def summarize(root: Path, kinds: Sequence[QuestionKind], axes: Sequence[str]) -> Summary:
    """Judge every comparison under ``root``.

    StoreError, one line, when nothing was asked, when a cell is missing, or when a kind of question is unknown.
    """
    store, asked, loaded = Store(root), load_asked(root), load_comparisons(root)
    if not asked and not loaded:
        raise StoreError(f"{str(root)!r} holds no study: run `pytest suites/ --study DIR` with this folder first")
    _require_kinds({path_of(root, c.name): c for c in loaded}, kinds)
    _require_kinds({path_of(root, each.question.name, FOLDER): each.question for each in asked}, kinds)
    comparisons = tuple(sorted(loaded, key=lambda c: report_order(c, axes)))
    answers: list[tuple[QuestionKind, tuple[Finding, ...]]] = []
    known = Findings()
    for kind in kinds:
        found = kind.find(store, comparisons, known)
        answers.append((kind, found))
        known = Findings((*known.found, *found))
    return Summary(
        name=root.resolve().name,
        axes=tuple(axes),
        asked=tuple(sorted(asked, key=lambda each: report_order(each.question, axes))),
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
    """The report: what is wrong or open, the sections of all kinds, and the appendix, part by part."""
    by_kind = {kind.label: tuple(kind.sections(summary)) for kind, _ in summary.answers}
    anchors = {label: sections[0].anchor for label, sections in by_kind.items() if sections}
    sections = [
        *not_as_expected(summary, anchors),
        *without_answer(summary),
        *(section for own in by_kind.values() for section in own),
        *appendix(summary),
    ]
    return Report(
        name=summary.name,
        verdict=summary.verdict,
        conclusion=conclusion(summary),
        lines=tuple(count_lines(summary)),
        facts=facts(summary),
        sections=tuple(sorted(sections, key=lambda section: section.part)),
    )
