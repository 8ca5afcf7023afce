"""The mutation table of conformance as Markdown: mistakes that happened, and right candidates."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mue_check.report.markdown import escape

if TYPE_CHECKING:
    from mue_check.mutants.run_routing import BugOutcome, RightOutcome
    from mue_check.mutants.run_setups import SetUpOutcome

_SAID = 140
"""Characters of a finding that stand in a table."""


def bug_words(
    bugs: "Sequence[BugOutcome]", set_ups: "Sequence[SetUpOutcome]", right: "Sequence[RightOutcome]"
) -> list[str]:
    """The score, and a line for each mistake missed and each false alarm."""
    alarms = [r for r in right if r.false_alarms]
    lines = [f"{sum(b.caught for b in bugs)} of {len(bugs)} mistakes caught by the check that names them"]
    lines += [f"not caught: row {b.row} {b.name} by {b.caught_by}: {b.said}" for b in bugs if not b.caught]
    lines.append(f"{sum(s.caught for s in set_ups)} of {len(set_ups)} broken set-ups seen by the audit")
    lines += [f"not seen: {s.name} by {s.caught_by}: {s.said}" for s in set_ups if not s.caught]
    if right:
        lines.append(
            f"{len(right) - len(alarms)} of {len(right)} right candidates pass their own claim without a false alarm, "
            f"in {sum(r.cases for r in right):,} cases"
        )
    lines += [f"false alarm: {r.name}: {', '.join(r.false_alarms)}" for r in alarms]
    return lines


def render_bugs(
    bugs: "Sequence[BugOutcome]",
    set_ups: "Sequence[SetUpOutcome]",
    right: "Sequence[RightOutcome]",
    command: str,
) -> str:
    """The tables under the score."""
    lines = ["# Conformance: what it catches and what it lets pass", "", f"    {command}", ""]
    lines += [f"* {words}" for words in bug_words(bugs, set_ups, right)]
    lines += ["", "Rows 23 and 24 are mistakes of an optimizer: they stand among the set-ups.", ""]
    lines += [
        "| row | mistake | seen in | caught by | what it measured | others that see it |",
        "|---:|---|---|---|---|---|",
    ]
    for b in bugs:
        caught = f"**{b.caught_by}**" if b.caught else f"{b.caught_by}: missed"
        what, also = escape(f"{b.name}: {b.summary}"), ", ".join(b.also) or "-"
        lines.append(f"| {b.row} | {what} | {escape(b.seen)} | {caught} | {escape(b.said[:_SAID])} | {also} |")
    if right:
        lines += [
            "",
            "| right candidate | its own claim | fit for Complete-muE | warned | cases |",
            "|---|---|---|---|---:|",
        ]
    for r in right:
        said = f"{r.fit}: {r.fit_says}"
        lines.append(
            f"| {r.name} ({r.kind.replace('_', ' ')}) | {r.claim} | {escape(said[:_SAID])} | "
            f"{', '.join(r.warned) or '-'} | {r.cases} |"
        )
    return "\n".join(lines) + "\n"
