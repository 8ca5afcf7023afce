"""What a study says, in one sentence; what was measured where and when; which answers are not as expected, which
questions have none, and which its last run asked."""

import math
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from mue_check.judge.verdict import Verdict, join, meets
from mue_check.questions.asked import Unanswered
from mue_check.questions.axes_report import anchor_of
from mue_check.questions.compare import main_drifts
from mue_check.questions.comparison import Comparison
from mue_check.questions.display import grouped, knob_name, together
from mue_check.questions.drift import DriftFinding
from mue_check.questions.question import Finding, Summary
from mue_check.questions.scales import LawsFinding
from mue_check.report.format import NONE, in_words, printable, signed_text
from mue_check.report.section import Fold, Part, Section
from mue_check.report.table import Cells, make_table

_ENDINGS = {Verdict.FAIL: "it fails on", Verdict.INCONCLUSIVE: "it is open on"}


def conclusion(summary: Summary) -> str:
    """On how many axes the learning rate transfers, and where it does so least; else how much is as expected."""
    judged = [d for d in together(main_drifts(summary)) if d.comparison.expected]
    if not judged:
        pairs = [pair for pairs in summary.verdicts.values() for pair in pairs]
        met = sum(meets(verdict, expected) for verdict, expected in pairs)
        return f"{met} of {number_of(len(pairs), 'judged answer')} as expected" if pairs else "Nothing is judged"
    knob = "lr" if any(d.comparison.knob == "lr" for d in judged) else judged[0].comparison.knob
    judged = [d for d in judged if d.comparison.knob == knob]
    axes = {axis: found for (axis,), found in grouped(judged, lambda d: (d.comparison.ladder,))}
    verdicts = {axis: join(d.verdict for d in found) for axis, found in axes.items()}
    kept = [axis for axis, verdict in verdicts.items() if verdict is Verdict.PASS]
    name = knob_name(knob)
    within = " or ".join(f"{tolerance:g}" for tolerance in sorted({d.comparison.tolerance for d in judged}))
    approximate = sum(verdict is Verdict.RESIDUAL for verdict in verdicts.values())
    parts = [
        f"{name[0].upper()}{name[1:]} transfers on {len(kept)} of {len(axes)} {'axis' if len(axes) == 1 else 'axes'} "
        f"within {within} octave" + f" and on {approximate} as closely as an approximate law states" * bool(approximate)
    ]
    for verdict, ending in _ENDINGS.items():
        if places := [_with_drift(axis, axes[axis]) for axis in axes if verdicts[axis] is verdict]:
            parts.append(f"{ending} {', '.join(places)}")
    if len(parts) == 1 and (weakest := _farthest([d for axis in kept for d in axes[axis]])):
        parts.append(f"weakest: {in_words(weakest.comparison.ladder)}, {signed_text(weakest.drift.interval.mean)}")
    return "; ".join(parts)


def _with_drift(axis: str, found: Sequence[DriftFinding]) -> str:
    farthest = _farthest(found)
    return f"{in_words(axis)} ({signed_text(farthest.drift.interval.mean) if farthest else 'unresolved'})"


def _farthest(found: Iterable[DriftFinding]) -> DriftFinding | None:
    resolved = [d for d in found if math.isfinite(d.drift.interval.mean)]
    return max(resolved, key=lambda d: abs(d.drift.interval.mean), default=None)


def facts(summary: Summary) -> Mapping[str, str]:
    """When, with what and on what it was measured, by name; without what is not known."""
    where = [each for each in summary.environments if each]

    def all_of(value: Callable[[Comparison], str]) -> str:
        return ", ".join(dict.fromkeys(printable(value(c)) for c in summary.questions if c.is_right))

    date = re.match(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)", summary.last_run)
    seconds = summary.costs.total
    found = {
        "Date": f"{date[1]} {date[2]} UTC" if date else "",
        "Version": ", ".join(sorted({f"mue_check {each.mue_check}, torch {each.torch}" for each in where})),
        "Machine": ", ".join(sorted({f"{each.device}, {each.processor}" for each in where})),
        "Reference model": _most_common(c.sides[0].model for c in summary.comparisons if c.is_right and c.sides[1:]),
        "Rule": all_of(lambda c: c.rule),
        "Tier": all_of(lambda c: c.tier),
        "Data": all_of(lambda c: c.corpus),
        "Command": _most_common(_whole_run(c.command) for c in summary.questions if c.is_right),
        "Core time": f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min",
    }
    return {name: printable(value) for name, value in found.items() if value}


def _most_common(values: Iterable[str]) -> str:
    counts = Counter(filter(None, values))
    return counts.most_common(1)[0][0] if counts else ""


def _whole_run(command: str) -> str:
    """The command that asks all questions with the options of a command that asks one."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    return shlex.join("suites/" if word.startswith("suites/") else word for word in words)


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
    if not wrong:
        return

    def link(item: tuple[str, Finding]) -> str:
        label, found = item
        if found.comparison.is_control:
            return "controls"
        in_strip = isinstance(found, DriftFinding | LawsFinding) and found.comparison.axis not in summary.own_axes
        return anchor_of(found.comparison) if in_strip else anchors.get(label, "questions")

    columns: Cells[tuple[str, Finding]] = {
        "question": lambda item: item[1].comparison.name,
        "verdict": lambda item: str(item[1].verdict),
        "expected": lambda item: item[1].comparison.expected,
        "measured": lambda item: item[1].measured.splitlines()[0].removeprefix(f"{item[1].verdict}: "),
    }
    title = "Not as expected"
    yield Section(
        part=Part.FAILURES,
        anchor="failures",
        title=title,
        tables=(make_table(number_of(len(wrong), "answer"), wrong, columns, link=link),),
    )


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
