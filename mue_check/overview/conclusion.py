"""What a study says: in one sentence, as facts by name, as counts of verdicts, and as the outcome of a run."""

import math
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from mue_check.judge.verdict import Verdict, join, meets
from mue_check.questions.display import count_text, grouped, knob_name, merged
from mue_check.questions.drift import DriftFinding, main_drifts
from mue_check.questions.summary import Summary
from mue_check.report.format import in_words, printable, signed_text
from mue_check.study.comparison import Comparison

_ENDINGS = {Verdict.FAIL: "it fails on", Verdict.INCONCLUSIVE: "it is open on"}


def conclusion(summary: Summary) -> str:
    """On how many axes the learning rate transfers, and where it does so least; else how much is as expected."""
    judged = [d for d in merged(main_drifts(summary)) if d.comparison.expected]
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


def count_lines(summary: Summary) -> list[str]:
    """What the report is of; then ``drift: 3 PASS, 1 INCONCLUSIVE``, one line for each kind of question."""
    lines = [f"whole study: {number_of(len(summary.questions), 'question')}{of_last_run(summary)}"]
    unexpected = {
        kind.label: sum(len(found.verdicts) for found in merged(all_found) if not found.comparison.expected)
        for kind, all_found in summary.answers
    }
    for label, pairs in summary.verdicts.items():
        correct = sum(meets(verdict, expected) for verdict, expected in pairs)
        counts = f"{correct} of {len(pairs)} as expected" if label == "control" else count_text(v for v, _ in pairs)
        others = unexpected.get(label)
        lines.append(f"{label}: {counts}" + (f"; {others} without an expected verdict" if others else ""))
    if not summary.verdicts:
        lines.append("nothing is judged: no question with an answer expects a verdict")
    if summary.unanswered:
        lines.append(f"no answer: {number_of(len(summary.unanswered), 'question')}")
    lines += _doubts(summary)
    without = sum(c.kind in ("drift", "early_curve", "coordinates") and not c.looks for c in summary.comparisons)
    if without:
        lines.append(
            f"{without} answers are of a version that did not store at which numbers of seeds it looked: their 95 % "
            "holds only where that number was fixed in advance"
        )
    return lines


_LISTED = 10
"""At most this many questions without an answer are named on a terminal."""


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
    return [*lines, *(f"  {line}" for line in _doubts(summary))]


def number_of(count: int, what: str) -> str:
    """``3 questions``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def _doubts(summary: Summary) -> Iterator[str]:
    """Why a study with a run that was stopped, or with answers to questions that are not listed, is no PASS."""
    if summary.unfinished:
        yield (
            f"the run that began at {printable(summary.unfinished[0]).rpartition('-')[0]} did not finish, so questions "
            "may be missing: run its command again, which trains nothing twice"
        )
    if summary.unlisted:
        yield (
            f"{len(summary.unlisted)} of {number_of(len(summary.comparisons), 'answer')} are not in the study's list "
            "of questions (asked/), so others may be missing: run the suites again, which trains nothing twice"
        )


def of_last_run(summary: Summary) -> str:
    """How many of the questions the last run asked."""
    if not summary.last_run:
        return ""
    asked = len(summary.of_run(summary.last_run).asked)
    which = "all of them" if asked == len(summary.questions) else f"{asked} of them"
    return f"; the last run ({printable(summary.last_run)}) asked {which}"
