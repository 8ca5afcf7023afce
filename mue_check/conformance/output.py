"""Results for people and for machines: lines, JSON, JUnit."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence

from mue_check.conformance.isolate import Session
from mue_check.conformance.result import Question, Result
from mue_check.judge.verdict import Verdict

_WORDS = {
    "passed": "ok",
    "failed": "FAIL",
    "error": "ERROR",
    "skipped": "-",
    "unknown": "OPEN",
    "xfailed": "xfail",
    "xpassed": "XPASS",
}
_QUESTIONS: Mapping[Question, str] = {"claim": "matches its own claim", "fit": "fit for Complete-muE"}
SCHEMA = 1
_NAMED = 6


def line_of(result: Result) -> str:
    """One line: outcome, id, what was measured."""
    word = "warn" if result.warning else _WORDS[result.outcome]
    return f"  {word:5} {result.check:22} {result.measured}"


def verdict_lines(results: Sequence[Result], verdicts: Mapping[Question, Verdict]) -> list[str]:
    """The verdicts, each with what stands against it."""
    lines = []
    for question, verdict in verdicts.items():
        asked = [r for r in results if r.question == question]
        against = [r.check for r in asked if r.severity == "must" and (r.broken or r.outcome == "unknown")]
        warned = [r.check for r in asked if r.warning]
        passed = sum(r.outcome == "passed" for r in asked)
        said = f"{passed} of {len(asked)} checks pass, {sum(r.outcome == 'skipped' for r in asked)} do not apply"
        if against:
            said = ", ".join(against[:_NAMED]) + (f" and {len(against) - _NAMED} more" if len(against) > _NAMED else "")
        elif question == "fit":
            said = next((r.measured for r in asked if r.check == "fit-scale"), said)
        lines.append(
            f"{_QUESTIONS[question]}: {verdict} ({said})" + (f"; warned: {', '.join(warned)}" if warned else "")
        )
    return lines


def stories(results: Sequence[Result]) -> list[str]:
    """What each failure has to say; failures with the same words are told once."""
    told: dict[str, Result] = {}
    same: dict[str, list[str]] = {}
    for result in results:
        if result.broken or result.outcome == "unknown":
            first = told.setdefault(result.measured, result)
            if first is not result:
                same.setdefault(first.check, []).append(result.check)
    return [
        r.explain() + (f"\n  the same: {', '.join(same[r.check])}" if r.check in same else "") for r in told.values()
    ]


def as_json(
    candidate: str,
    session: Session,
    results: Sequence[Result],
    verdicts: Mapping[Question, Verdict],
    unmatched: Sequence[str],
) -> str:
    """Everything, in one object."""
    return json.dumps(
        {
            "schema": SCHEMA,
            "subject": candidate,
            "device": session.device,
            "found": session.head,
            "verdicts": {question: str(verdict) for question, verdict in verdicts.items()},
            "unmatched_expected_failures": list(unmatched),
            "results": [result.as_json() for result in results],
        },
        indent=1,
    )


def as_junit(candidate: str, results: Sequence[Result]) -> str:
    """JUnit XML: one testcase per check; a failing should is no failure, its words go to system-out."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"mue_check {candidate}",
        tests=str(len(results)),
        failures=str(sum(_counts(r) and r.outcome != "error" for r in results)),
        errors=str(sum(_counts(r) and r.outcome == "error" for r in results)),
        skipped=str(sum(r.outcome in ("skipped", "xfailed") for r in results)),
        time=f"{sum(r.seconds for r in results):.3f}",
    )
    for result in results:
        case = ElementTree.SubElement(
            suite, "testcase", classname=candidate, name=result.check, time=f"{result.seconds:.3f}"
        )
        if _counts(result):
            kind = "error" if result.outcome == "error" else "failure"
            ElementTree.SubElement(case, kind, message=_xml(result.measured)).text = _xml(result.explain())
        elif result.outcome in ("skipped", "xfailed"):
            ElementTree.SubElement(case, "skipped", message=_xml(result.measured))
        else:
            ElementTree.SubElement(case, "system-out").text = _xml(result.measured)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _counts(result: Result) -> bool:
    return (result.broken or result.outcome == "unknown") and (result.severity == "must" or result.outcome == "xpassed")


def _xml(text: str) -> str:
    """Without the control characters that XML has no place for; a user's exception may hold any."""
    return "".join(c if c in "\t\n" or ord(c) >= 32 else "?" for c in text)
