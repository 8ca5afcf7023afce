"""``mue_check families``: the router, the block and the audit of every mixture in the installed transformers."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mue_check.cli.command import (
    EXIT_FAIL,
    EXIT_OK,
    MOST_WORKERS,
    Commands,
    Options,
    Parser,
    require_between,
    write_output,
)

_REFERENCE = "d=32,L=2,H=32"
_LISTED, _LONGEST = 3, 200


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """What was found of one family: a cell each for router, block and audit, and whether one of them fails."""

    name: str
    cells: tuple[str, str, str]
    fails: bool


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    families = commands.add_parser(
        "families",
        help="check every mixture of the installed transformers",
        description="Check router, block and audit of every mixture in the installed transformers, each as "
        "`mue_check router hf:NAME` and so on would, and print a line for each. Exit 1 when one fails its own claim or "
        "the audit, and --notes does not explain it.",
        epilog="example: mue_check families --workers 2 --notes reports/families.toml --out reports/families.md",
    )
    families.add_argument("names", nargs="*", metavar="CONFIG", help="only these: Qwen3MoeConfig, ... (default: all)")
    families.add_argument("--seeds", type=int, default=1, metavar="N", help="weights and tokens per shape (default: 1)")
    families.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    families.add_argument("--notes", type=Path, metavar="FILE.toml", help='known failures: CONFIG = "reason"')
    families.add_argument("--out", type=Path, metavar="FILE", help="write the table as Markdown")
    families.set_defaults(run=run)


def run(options: Options) -> int:
    """Check each family, print it as it is done, and write the table."""
    from mue_check.errors import ClaimError, unknown
    from mue_check.input_files import read_toml
    from mue_check.routing.hugging_face import family_names

    require_between("--seeds", options.seeds, 1, 1000)
    require_between("--workers", options.workers, 1, MOST_WORKERS)
    notes = read_toml(options.notes, f"--notes {options.notes}", ClaimError) if options.notes else {}
    known = list(family_names())
    names = options.names or known
    for name in names:
        if name.partition(",")[0] not in known:
            raise ClaimError(unknown("family", name, known))
    rows, unexplained = [], []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=spawn) as pool:
        for row in pool.map(partial(examine, seeds=options.seeds), names):
            rows.append(row)
            note = f"\n  because: {notes[row.name]}" if row.name in notes else ""
            print(row.name, *(f"\n  {w:7} {cell}" for w, cell in zip(_KINDS, row.cells, strict=True)), note, sep="")
            unexplained += [row.name] if row.fails and row.name not in notes else []
    print(f"families: {len(rows)}, {sum(row.fails for row in rows)} with a failure", end="")
    print(f", unexplained: {', '.join(unexplained)}" if unexplained else "")
    if options.out:
        flags = f" --notes {options.notes}" if options.notes else ""
        write_output(str(options.out), _table(rows, notes, f"mue_check families --seeds {options.seeds}{flags}"))
    return EXIT_FAIL if unexplained else EXIT_OK


def examine(name: str, seeds: int) -> Verdicts:
    """One family, in this process: the code is that of transformers, not a stranger's."""
    import torch

    torch.set_num_threads(1)
    found = [_checked("router", name, seeds), _checked("block", name, seeds), _audited(name)]
    cells = tuple(cell for cell, _ in found)
    return Verdicts(name=name, cells=cells, fails=any(fails for _, fails in found))  # type: ignore[arg-type]


_KINDS = ("router", "block", "audit")


def _checked(kind: str, name: str, seeds: int) -> tuple[str, bool]:
    """(the verdict on a router or block and the checks against it, whether its own claim fails)."""
    from mue_check.conformance.api import check_candidate
    from mue_check.conformance.result import verdict_of
    from mue_check.errors import MueCheckError
    from mue_check.judge.verdict import Verdict

    try:
        results = check_candidate("router" if kind == "router" else "block", f"hf:{name}", seeds=seeds)
    except MueCheckError as error:
        return f"not checked: {_short(str(error))}", False
    claim, fit = verdict_of(results, "claim"), verdict_of(results, "fit")
    against = {r.measured: r.check for r in reversed(results) if r.against and r.question == "claim"}
    fails = [f"{check}: {_short(measured)}" for measured, check in reversed(against.items())]
    more = f"; and {len(fails) - _LISTED} more" if len(fails) > _LISTED else ""
    unfit = ", ".join(r.check for r in results if r.against and r.question == "fit")
    about = "; ".join(fails[:_LISTED]) + more
    transfers = f"fit {fit} ({unfit})" if unfit else f"fit {fit}"
    return f"{claim}{f' ({about})' if about else ''}, {transfers}", claim != Verdict.PASS


def _audited(name: str) -> tuple[str, bool]:
    """(the verdict of the audit with what is prescribed, whether that is not a pass)."""
    from mue_check.audit import audit_model
    from mue_check.audit.hugging_face import prescribed_set_up
    from mue_check.errors import MueCheckError
    from mue_check.judge.verdict import Verdict
    from mue_check.rules import HyperParameters

    base = HyperParameters(lr=1e-2, weight_decay=0.1, init_std=0.02)
    try:
        setup, judging = prescribed_set_up(f"hf:{name}", reference=_REFERENCE, base=base)
        report = audit_model(setup.model, setup.optimizers, **judging)
    except MueCheckError as error:
        return f"refused: {_short(str(error))}", False
    except Exception as error:  # code of the library, at untypically small sizes
        return f"not built: {_short(f'{type(error).__name__}: {error}')}", False
    what = next((line for line in (*report.unjudged, *map(str, report.offences))), "")
    return _short(str(report).rpartition("\n")[2] + (f" ({what})" if what else "")), report.verdict != Verdict.PASS


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _table(rows: Sequence[Verdicts], notes: dict[str, object], command: str) -> str:
    """The rows as Markdown."""
    from importlib.metadata import version

    lines = [
        "# The mixtures of transformers",
        "",
        f"`{command}`, with transformers {version('transformers')}. Each cell is what `mue_check router hf:NAME`, "
        "`mue_check block hf:NAME` and",
        f"`mue_check audit hf:NAME --reference {_REFERENCE}` say of the family's tiny model. *fit*: its weights have a "
        "constant sum, so that tuned values transfer.",
        "",
        "| family | router | block | audit | why a failure is true of the code |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row.name, *row.cells, str(notes.get(row.name, "not explained" if row.fails else ""))]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
