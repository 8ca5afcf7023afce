"""Mutation testing of judge/ and records/: mutmut changes the code in one place at a time, and some test must notice.

`make mutate` runs it, with the settings in pyproject.toml. What survives is listed with the reason why it makes no
difference, or counts against the score. mutmut does not mutate properties, decorated functions and constants.
"""

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from tests.reliability.page import PAGE, write_section

TITLE = "Mutation testing of the judge and the records"
COMMAND = "python -m tests.reliability.mutation"
MUTANTS = Path("mutants")
NOT_RUN = "not run"
"""Counts the mutants that are left when mutmut was stopped; they are in no score."""
_KILLED = frozenset({1, 3, 24, -24, 152, 36, -9, 255})
"""mutmut's exit codes of a mutant that a test noticed, that ran into its time limit, or that ended the process."""


class Survivor(NamedTuple):
    """A mutant that no test noticed: the line before and after."""

    file: str
    before: str
    after: str


class Equivalent(NamedTuple):
    """Changes that make no difference. ``before`` and ``after`` are regular expressions that each line must match."""

    before: str
    after: str
    reason: str


EQUIVALENTS = (
    Equivalent(r'"records"', r'"RECORDS"', "pandas takes the word in either case"),
    Equivalent(r"allow_nan=False", r"allow_nan=None", "both are false"),
    Equivalent(r"missing_ok=True", r"missing_ok=(None|False)", "the file was made just before"),
    Equivalent(
        r"kinds\[-1\] is Ellipsis", r"kinds\[\+1\] is Ellipsis", "only the second of two types can be an ellipsis"
    ),
    Equivalent(
        r"dtype=np\.(float64|int64)",
        r"dtype=None|, \)|\(\)$|\(\),",
        "the numbers have that type already; it is stated for the type checker",
    ),
    Equivalent(
        r"strict=True",
        r"strict=(None|False)|, \):$|, \)$|, \)\)",
        "both lists come from one list, so they are equally long",
    ),
    Equivalent(
        r'encoding="utf-8"',
        r'encoding="UTF-8"|encoding=None|"a", \)|\(\)|, \)',
        "the same encoding on the systems that mue_check supports",
    ),
    Equivalent(
        r'values\.shape\[1\] if law\.over_blocks == "sum" else 1\)',
        r"else 2\)",
        "a factor that all rungs share cancels in slopes and ratios",
    ),
    Equivalent(
        r"off\[row, column\] <= 1",
        r"off\[row, column\] < 1",
        "no sum of weights in floating point lies exactly on the bound",
    ),
    Equivalent(
        r"learning\.high < -TREND_TOLERANCE",
        r"learning\.high <= -TREND_TOLERANCE",
        "no fitted slope in floating point lies exactly on the bound",
    ),
    Equivalent(
        r"for seed in resolved\[0\]\[1\] if all",
        r"for seed in resolved\[1\]\[1\] if all",
        "the seeds that all drifts have are the same whichever drift is read first",
    ),
)


def reason_of(survivor: Survivor, known: Iterable[Equivalent] = EQUIVALENTS) -> str | None:
    """Why the change makes no difference; None if it does, or if nobody has looked."""
    for each in known:
        if re.search(each.before, survivor.before) and re.search(each.after, survivor.after):
            return each.reason
    return None


def read_results(folder: Path, diff: Callable[[str], str]) -> tuple[Counter[str], list[Survivor]]:
    """By file, how many mutants there are, and those that survived. ``diff`` is the unified diff of a mutant."""
    total: Counter[str] = Counter()
    survivors, pending = [], 0
    for meta in sorted(folder.glob("mue_check/*/*.meta")):
        file = str(meta.relative_to(folder)).removesuffix(".meta")
        for name, code in json.loads(meta.read_text())["exit_code_by_key"].items():
            if code is None:
                pending += 1
                continue
            total[file] += 1
            if code not in _KILLED:
                lines = [line for line in diff(name).splitlines() if not line.startswith(("---", "+++"))]
                before, after = (" ".join(x[1:].strip() for x in lines if x.startswith(sign)) for sign in "-+")
                survivors.append(Survivor(file=file, before=before, after=after))
    if pending:
        total[NOT_RUN] = pending
    return total, survivors


def section(total: Counter[str], survivors: Iterable[Survivor], known: Iterable[Equivalent] = EQUIVALENTS) -> str:
    """The score by file, then what survived: first what makes no difference, by reason, then the rest."""
    reasons = [(survivor, reason_of(survivor, known)) for survivor in survivors]
    rows, sums = [], Counter[str]()
    for file, mutants in sorted((total - Counter({NOT_RUN: total[NOT_RUN]})).items()):
        same = sum(s.file == file and reason is not None for s, reason in reasons)
        alive = sum(s.file == file and reason is None for s, reason in reasons)
        rows.append(_row(file, mutants, same, alive))
        sums += Counter(mutants=mutants, same=same, alive=alive)
    lines = [
        f"{_share(sums['mutants'], sums['same'], sums['alive'])} of the mutants that make a difference are killed."
        + (f" {total[NOT_RUN]} more were not run." if total[NOT_RUN] else ""),
        "",
        "| file | mutants | make no difference | survive | killed |",
        "|---|---|---|---|---|",
        *rows,
        _row("all", sums["mutants"], sums["same"], sums["alive"]),
        "",
        "Mutants that make no difference:",
        "",
        *(f"- {count}: {reason}" for reason, count in Counter(r for _, r in reasons if r).most_common()),
    ]
    left = [survivor for survivor, reason in reasons if reason is None]
    if left:
        lines += ["", "Mutants that survive:", ""]
        lines += [f"- {s.file}: `` {s.before} `` -> `` {s.after} ``" for s in left]
    return "\n".join(lines)


def _row(name: str, mutants: int, same: int, alive: int) -> str:
    return f"| {name} | {mutants} | {same} | {alive} | {_share(mutants, same, alive)} |"


def _share(mutants: int, same: int, alive: int) -> str:
    return f"{(mutants - same - alive) / (mutants - same):.1%}" if mutants > same else "-"


def main(arguments: list[str] | None = None) -> int:
    """Run mutmut (it goes on where it was stopped), and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judged", action="store_true", help="write the section from the results that are there")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    if not options.judged:
        subprocess.run([sys.executable, "-m", "mutmut", "run"], check=False)
    # make mutate installs it; nothing else needs it
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    body = section(*read_results(MUTANTS, get_diff_for_mutant))
    write_section(TITLE, COMMAND, body, options.page)
    print(body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
