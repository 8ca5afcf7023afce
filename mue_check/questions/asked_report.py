"""What a study says about its questions: which have no answer, and which its last run asked."""

from mue_check.questions.asked import Unanswered
from mue_check.questions.comparison import Comparison
from mue_check.questions.question import Summary
from mue_check.report.format import NONE, in_words, printable
from mue_check.report.section import Fold, Part, Section
from mue_check.report.table import Cells, make_table

_LISTED = 10
"""So many questions without an answer are named on a terminal."""


def outcome_lines(summary: Summary, what: str) -> list[str]:
    """The verdict of ``what`` (a run or a study), and the questions that have no answer."""
    missing, questions = summary.unanswered, len(summary.questions)
    lines = [f"{what}: {summary.verdict.value}, {number_of(questions, 'question')}"]
    if missing:
        lines[0] += f", {len(missing)} without an answer"
    elif not summary.verdicts:
        lines[0] += ", none of which expects a verdict: nothing is judged"
    lines += [f"  no answer: {printable(u.comparison.name)}: {printable(u.reason)}" for u in missing[:_LISTED]]
    if len(missing) > _LISTED:
        lines.append(f"  and {len(missing) - _LISTED} more")
    if summary.unfinished:
        lines.append(f"  {unfinished_text(summary)}")
    if summary.unlisted:
        lines.append(f"  {unlisted_text(summary)}")
    return lines


def number_of(count: int, what: str) -> str:
    """``3 questions``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def unfinished_text(summary: Summary) -> str:
    """Why a study with a run that was stopped is no PASS."""
    return (
        f"the run that began at {printable(summary.unfinished[0]).rpartition('-')[0]} did not finish, so questions may "
        "be missing: run its command again, which trains nothing twice"
    )


def unlisted_text(summary: Summary) -> str:
    """Why answers without a recorded question are no PASS."""
    return (
        f"{len(summary.unlisted)} of {number_of(len(summary.comparisons), 'answer')} are not in the study's list of "
        "questions (asked/), so others may be missing: run the suites again, which trains nothing twice"
    )


def of_last_run(summary: Summary) -> str:
    """How many of the questions the last run asked."""
    if not summary.last_run:
        return ""
    asked = len(summary.of_run(summary.last_run).asked)
    which = "all of them" if asked == len(summary.questions) else f"{asked} of them"
    return f"; the last run ({printable(summary.last_run)}) asked {which}"


def without_answer(summary: Summary) -> Section:
    """The questions that raised, were interrupted, or whose answers are gone."""
    columns: Cells[Unanswered] = {
        "question": lambda u: u.comparison.name,
        "kind": lambda u: in_words(u.comparison.kind),
        "expected": lambda u: u.comparison.expected or NONE,
        "why": lambda u: u.reason,
    }
    title = "Questions without an answer"
    return Section(
        part=Part.FAILURES,
        anchor="unanswered",
        title=title,
        text="They raised an error, were interrupted, or their answers are gone. The study does not pass until they "
        "are asked again (Run again, below).",
        tables=(make_table(title, summary.unanswered, columns),),
    )


def which_run(summary: Summary) -> Section:
    """Every question, and the run that asked it last."""
    runs = {each.question.name: each.run for each in summary.asked}
    missing = {u.comparison.name for u in summary.unanswered}
    verdicts = {f.comparison.name: f.verdict for _, found in summary.answers for f in found if f.verdict}

    def verdict_text(c: Comparison) -> str:
        verdict = verdicts.get(c.name)
        return "no answer" if c.name in missing else verdict.value if verdict else NONE

    columns: Cells[Comparison] = {
        "question": lambda c: c.name,
        "verdict": verdict_text,
        "expected": lambda c: c.expected or NONE,
        "asked last by run": lambda c: runs.get(c.name) or NONE,
        "last run": lambda c: "yes" if summary.last_run and runs.get(c.name) == summary.last_run else "",
    }
    title = f"{number_of(len(summary.questions), 'question')}{of_last_run(summary)}"
    return Section(
        part=Part.APPENDIX,
        anchor="questions",
        title="Which run asked what",
        text="A study collects the questions of all its runs, and this report is of all of them. The exit code of "
        "`pytest suites/` and its lines on the terminal are of one run only. A question that is asked again has the "
        "answer of its last run.",
        folds=(Fold(title=title, tables=(make_table(title, summary.questions, columns),), brief=True),),
    )
