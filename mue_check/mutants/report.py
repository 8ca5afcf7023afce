"""The tables of mutants in Markdown: what each check found in each mutant, and what it let pass."""

from collections.abc import Iterable, Sequence

from mue_check.mutants.mutant import MutantResult, killed
from mue_check.mutants.routing.examine import RightResult
from mue_check.mutants.rules import CHECKS
from mue_check.report.markdown import escape

_MEASURED = 140
"""Characters of a finding that a table shows."""


def rule_lines(results: Sequence[MutantResult]) -> list[str]:
    """The score, and a line for each mutant that its own check did not catch."""
    lines = [f"{killed(results)} of {len(results)} mutants caught by the check that names them"]
    for result in results:
        if not result.killed:
            found = "; ".join(f"{o.check} {o.verdict}: {o.measured}" for o in result.outcomes)
            lines.append(f"not caught: {result.mutant.name} (must be seen by {result.mutant.caught_by}): {found}")
    return lines


def render_rules(results: Sequence[MutantResult], command: str) -> str:
    """The table of the mutants of the parameterization, with the score of each check."""
    checks = [check for check in CHECKS if any(o.check == check for r in results for o in r.outcomes)]
    rows = []
    for result in results:
        mutant, found = result.mutant, {outcome.check: outcome for outcome in result.outcomes}
        seen = f" (seen in {mutant.seen})" if mutant.seen else ""
        cells = [escape(f"{mutant.name}: {mutant.summary}{seen}"), mutant.ladder]
        for check in checks:
            what = "-" if check not in found else "caught" if found[check].caught else found[check].verdict.lower()
            cells.append(f"**{what}**" if check == mutant.caught_by else what)
        rows.append([*cells, escape(result.measured[:_MEASURED])])
    caught = [sum(o.caught for r in results for o in r.outcomes if o.check == check) for check in checks]
    rows.append(["in all", "", *(f"{n} of {len(results)}" for n in caught), ""])
    lines = [
        "# Mutation table",
        "",
        f"    {command}",
        "",
        f"Score {killed(results) / len(results):.0%}: {rule_lines(results)[0]}.",
        "Bold: the check that must catch it. A dash: the ladder has no such check.",
        *_table(["mutant", "ladder", *checks, "what the naming check measured"], rows),
    ]
    return "\n".join(lines) + "\n"


def routing_lines(
    bugs: Sequence[MutantResult], setups: Sequence[MutantResult], right: Sequence[RightResult]
) -> list[str]:
    """The scores, and a line for each mistake missed and each false alarm."""
    alarms = [r for r in right if r.false_alarms]
    lines = [f"{killed(bugs)} of {len(bugs)} mistakes caught by the check that names them"]
    lines += [f"not caught: row {b.mutant.row} {_missed(b)}" for b in bugs if not b.killed]
    lines.append(f"{killed(setups)} of {len(setups)} broken set-ups seen by the audit")
    lines += [f"not seen: {_missed(s)}" for s in setups if not s.killed]
    if right:
        lines.append(
            f"{len(right) - len(alarms)} of {len(right)} right candidates pass their own claim without a false alarm, "
            f"in {sum(r.cases for r in right):,} cases"
        )
    return lines + [f"false alarm: {r.name}: {', '.join(r.false_alarms)}" for r in alarms]


def _missed(result: MutantResult) -> str:
    return f"{result.mutant.name} by {caught_by(result)}: {result.measured}"


def caught_by(result: MutantResult) -> str:
    """The check that must catch a mutant, and the parameter that it must name."""
    return " of ".join(filter(None, (result.mutant.caught_by, result.mutant.finding)))


def render_routing(
    bugs: Sequence[MutantResult], setups: Sequence[MutantResult], right: Sequence[RightResult], command: str
) -> str:
    """The tables of mistakes in routers, blocks and losses, and of right candidates, under the scores."""
    lines = ["# Conformance: what it catches and what it lets pass", "", f"    {command}", ""]
    lines += [f"* {line}" for line in routing_lines(bugs, setups, right)]
    lines += ["", "Rows 23 and 24 are mistakes of an optimizer: they are among the set-ups."]
    header = ["row", "mistake", "seen in", "caught by", "what it measured", "other checks that catch it"]
    rows = [
        [
            str(b.mutant.row),
            escape(f"{b.mutant.name}: {b.mutant.summary}"),
            escape(b.mutant.seen),
            f"**{b.mutant.caught_by}**" if b.killed else f"{b.mutant.caught_by}: missed",
            escape(b.measured[:_MEASURED]),
            ", ".join(b.also) or "-",
        ]
        for b in bugs
    ]
    lines += _table(header, rows)
    if right:
        header = ["right candidate", "its own claim", "fit for Complete-muE", "warned", "cases"]
        rows = [
            [
                f"{r.name} ({r.kind})",
                r.claim,
                escape(f"{r.fit}: {r.fit_measured}"[:_MEASURED]),
                ", ".join(r.warned) or "-",
                str(r.cases),
            ]
            for r in right
        ]
        lines += _table(header, rows)
    return "\n".join(lines) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = (header, ["---:" if name in ("row", "cases") else "---" for name in header], *rows)
    return ["", *(f"| {' | '.join(row)} |" for row in cells)]
