"""Results for people and for machines: lines, JSON, JUnit XML."""

import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence

from mue_check.conformance.isolate import Session
from mue_check.conformance.result import CheckResult, Question
from mue_check.judge.verdict import Verdict

_LABELS = {
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
_LISTED = 6


def line_of(result: CheckResult) -> str:
    """One line: outcome, id, what was measured."""
    label = "warn" if result.warning else _LABELS[result.outcome]
    return f"  {label:5} {result.check:22} {result.measured}"


class Lines:
    """The lines of results as they come; a reason why a check is open or could not run is given once."""

    def __init__(self) -> None:
        self._first: dict[str, CheckResult] = {}
        self._others: dict[str, list[str]] = {}

    def of(self, result: CheckResult) -> str:
        """The line of a result, "" if another check had the same reason."""
        if result.outcome not in ("unknown", "error"):
            return line_of(result)
        if self._first.setdefault(result.measured, result) is result:
            return line_of(result)
        self._others.setdefault(result.measured, []).append(result.check)
        return ""

    def rest(self) -> list[str]:
        """A line for each reason that several checks had, with those that have no line of their own."""
        return [
            f"  {_LABELS[first.outcome]:5} as {first.check}: {', '.join(self._others[reason])}"
            for reason, first in self._first.items()
            if reason in self._others
        ]


def verdict_lines(results: Sequence[CheckResult], verdicts: Mapping[Question, Verdict]) -> list[str]:
    """The verdicts, each with the checks that stand against it."""
    lines = []
    for question, verdict in verdicts.items():
        about = [r for r in results if r.question == question]
        against = [r.check for r in about if r.against]
        warned = [r.check for r in about if r.warning]
        outcomes = Counter(r.outcome for r in about)
        passed, expected = outcomes["passed"], outcomes["xfailed"]
        reason = f"{passed} of {len(about)} checks pass, {outcomes['skipped']} do not apply"
        reason += f", {expected} were expected to fail" if expected else ""
        if against:
            more = f" and {len(against) - _LISTED} more" if len(against) > _LISTED else ""
            reason = ", ".join(against[:_LISTED]) + more
        elif not passed:
            reason = f"nothing was checked: {reason}"
        elif question == "fit":
            reason = next((r.measured for r in about if r.check == "fit-scale"), reason)
        lines.append(
            f"{_QUESTIONS[question]}: {verdict} ({reason})" + (f"; warned: {', '.join(warned)}" if warned else "")
        )
    return lines


def explanations(results: Sequence[CheckResult]) -> list[str]:
    """Each failure in full; failures that measured the same are explained once."""
    groups: dict[str, list[CheckResult]] = {}
    for result in results:
        if result.broken or result.outcome == "unknown":
            groups.setdefault(result.measured, []).append(result)
    return [
        first.explain() + (f"\n  also:     {', '.join(r.check for r in others)}" if others else "")
        for first, *others in groups.values()
    ]


def as_json(
    candidate: str,
    session: Session,
    results: Sequence[CheckResult],
    verdicts: Mapping[Question, Verdict],
    unmatched: Sequence[str],
) -> str:
    """Everything in one object."""
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


def as_junit(candidate: str, results: Sequence[CheckResult]) -> str:
    """JUnit XML: one testcase per check; a failing should is not a failure and goes to system-out."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"mue_check {candidate}",
        tests=str(len(results)),
        failures=str(sum(r.against and r.outcome != "error" for r in results)),
        errors=str(sum(r.against and r.outcome == "error" for r in results)),
        skipped=str(sum(r.outcome in ("skipped", "xfailed") for r in results)),
        time=f"{sum(r.seconds for r in results):.3f}",
    )
    for result in results:
        case = ElementTree.SubElement(
            suite, "testcase", classname=candidate, name=result.check, time=f"{result.seconds:.3f}"
        )
        if result.against:
            kind = "error" if result.outcome == "error" else "failure"
            ElementTree.SubElement(case, kind, message=_xml(result.measured)).text = _xml(result.explain())
        elif result.outcome in ("skipped", "xfailed"):
            ElementTree.SubElement(case, "skipped", message=_xml(result.measured))
        else:
            ElementTree.SubElement(case, "system-out").text = _xml(result.measured)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text: str) -> str:
    """Replace control characters, which XML does not allow and a user's exception may contain."""
    return "".join(c if c in "\t\n" or ord(c) >= 32 else "?" for c in text)
