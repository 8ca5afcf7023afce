"""The mutation table as Markdown: what each check said of each mutant."""

from collections.abc import Sequence

from mue_check.mutants.outcome import CHECKS, MutantResult, score
from mue_check.report.markdown import escape

_SAID = 160
"""Characters of a finding that stand in a table."""


def mutation_words(results: Sequence[MutantResult]) -> list[str]:
    """One line for a terminal, and one for each mutant that its own check did not catch."""
    lines = [f"{sum(r.killed for r in results)} of {len(results)} mutants caught by the check that names them"]
    for result in results:
        if not result.killed:
            said = "; ".join(f"{o.check} {o.verdict}: {o.says}" for o in result.outcomes)
            lines.append(f"not caught: {result.name} (must be seen by {result.caught_by}): {said}")
    return lines


def render_mutation(results: Sequence[MutantResult], command: str) -> str:
    """The table with the score, per check and in all, and what the naming check measured."""
    checks = [check for check in CHECKS if any(o.check == check for r in results for o in r.outcomes)]
    header = ["mutant", "ladder", *checks, "what the naming check measured"]
    lines = [
        "# Mutation table",
        "",
        f"    {command}",
        "",
        f"Score {score(results):.0%}: {mutation_words(results)[0]}.",
        "Bold: the check that must catch it. A dash: the ladder has no such check.",
        "",
        _row(header),
        _row(["---"] * len(header)),
    ]
    for result in results:
        found = {outcome.check: outcome for outcome in result.outcomes}
        seen = f" (seen in {result.seen})" if result.seen else ""
        cells = [escape(f"{result.name}: {result.summary}{seen}"), result.ladder]
        for check in checks:
            said = "-" if check not in found else "caught" if found[check].caught else found[check].verdict.lower()
            cells.append(f"**{said}**" if check == result.caught_by else said)
        naming = found.get(result.caught_by)
        lines.append(_row([*cells, escape(naming.says[:_SAID]) if naming else "-"]))
    caught = [sum(o.caught for r in results for o in r.outcomes if o.check == check) for check in checks]
    lines.append(_row(["in all", "", *(f"{n} of {len(results)}" for n in caught), ""]))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
