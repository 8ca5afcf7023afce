"""Every field of every kind of file changed, deleted or swapped: an error that names the file, or the same verdict.

``python -m tests.reliability.tampering``. The studies are cut from the committed records: one question of each kind
with its cells. A field is changed in type, changed in value, or deleted; files are swapped, cut, emptied or deleted.
Each change of a record is made twice: as an editor would, and with a new digest. The second kind can change a verdict,
since whoever can write a digest can write any record; it must not end in a traceback.
"""

import contextlib
import io
import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.packed import unpack
from mue_check.catalog import summarize
from mue_check.cli import main as command
from mue_check.errors import MueCheckError
from mue_check.records.files import read_record, sealed
from mue_check.study.comparison import load_comparisons
from tests.reliability.page import campaign

REPORTS = Path(__file__).parents[2] / "reports"
PACKS = ("example", "sigma0")
FOLDERS = ("comparisons", "cells", "costs")
LOADS = ("", "x", "-1", "nan", "1e999", "4\n3\n2", "4\n3\n2\n1\n1", "0\n0\n0\n0", "[4,3,2,true]", "[" * 100_000, "\0")
"""What a load file of four experts may be by mistake."""
Outcome = Callable[[], object]
"""What a reader of the study or file finds. Raises a MueCheckError where it refuses."""


@dataclass(kw_only=True)
class Tampering:
    """Outcomes by kind of file, of edits and of edits with a new digest."""

    edits: Counter[tuple[str, str]] = field(default_factory=Counter)
    resealed: Counter[tuple[str, str]] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)

    def count(
        self, kind: str, where: str, path: Path, baseline: object, outcome: Outcome, *, is_resealed: bool
    ) -> None:
        """Look at the study after one change."""
        counter = self.resealed if is_resealed else self.edits
        try:
            result = "same verdict" if outcome() == baseline else "other verdict"
        except MueCheckError as error:
            lines = str(error).splitlines()
            named = path.stem if path.exists() else path.parents[1].name  # a question that is gone has no name
            result = "refused" if len(lines) == 1 and named in lines[0] else "refused without the file's name"
        except Exception as error:  # the campaign counts what it finds
            result = f"traceback of {type(error).__name__}"
        counter[kind, result] += 1
        if result.startswith("traceback") or (not is_resealed and result not in ("refused", "same verdict")):
            self.troubles.append(f"{kind}, {where}: {result}")

    def text(self) -> str:
        """The result in Markdown."""
        results = sorted({result for _, result in (*self.edits, *self.resealed)})
        lines = [f"| file | change | {' | '.join(results)} |", f"|---|---|{'---|' * len(results)}"]
        for label, counter in (("edited", self.edits), ("with a new digest", self.resealed)):
            lines += [
                f"| {kind} | {label} | {' | '.join(str(counter[kind, result]) for result in results)} |"
                for kind in sorted({kind for kind, _ in counter})
            ]
        total = self.edits.total() + self.resealed.total()
        wrong = "".join(f"\n* {trouble}" for trouble in self.troubles)
        return (
            f"{total} changes, {len(self.troubles)} of which ended in another verdict without an error, in an error "
            "that does not name the file, or in a traceback.\n\n" + "\n".join(lines) + wrong
        )


def cut_studies(folder: Path, kinds: Sequence[str] = ()) -> list[Path]:
    """A study for each kind of question (or for these): its first comparison, with the cells."""
    studies = []
    for pack in PACKS[:1] if kinds else PACKS:
        unpack(REPORTS / pack / "records.tar.xz", folder / pack)
        firsts = {c.kind: c for c in reversed(load_comparisons(folder / pack)) if c.expected or c.kind != "drift"}
        for kind, comparison in firsts.items():
            if kinds and kind not in kinds:
                continue
            root = folder / f"{pack}-{kind}"
            cells = [key for side in comparison.sides for key in side.cells]
            names = {"comparisons": [comparison.name], "cells": cells, "costs": cells}
            for part in FOLDERS:
                (root / part).mkdir(parents=True)
                for name in names[part]:
                    shutil.copyfile(folder / pack / part / f"{name}.json", root / part / f"{name}.json")
            (root / "logs").mkdir()
            (root / "logs" / "main.log").write_text("2026-01-01T00:00:00Z begins\n2026-01-01T00:00:01Z done\n")
            studies.append(root)
        shutil.rmtree(folder / pack)
    return studies


def verdicts(root: Path) -> object:
    """All that a report says of a study's questions."""
    summary = summarize(root)
    return summary.verdict, [(f.comparison.name, f.verdicts, f.measured) for _, found in summary.answers for f in found]


def places(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every field. Of a list of more than three, the first and the last."""
    if isinstance(value, dict):
        items: list[tuple[str | int, Any]] = list(value.items())
    elif isinstance(value, list):
        ends = range(len(value)) if len(value) <= 3 else (0, len(value) - 1)
        items = [(i, value[i]) for i in ends]
    else:
        return
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


def changes(value: Any, at: tuple[str | int, ...]) -> Iterator[tuple[str, Any]]:
    """The value with one field changed in type, changed in value, made null, and deleted."""
    for what in ("another type", "another value", "null", "deleted"):
        changed = json.loads(json.dumps(value))
        inner = changed
        for step in at[:-1]:
            inner = inner[step]
        old = inner[at[-1]]
        if what == "deleted":
            del inner[at[-1]]
        elif what == "another type":
            inner[at[-1]] = 7 if isinstance(old, str) else "text"
        elif what == "null":
            inner[at[-1]] = None
        else:
            inner[at[-1]] = _another(old)
        if changed != value:
            yield what, changed


def _another(old: Any) -> Any:
    if isinstance(old, bool):
        return not old
    if isinstance(old, int | float):
        return old * 2 + 1
    if isinstance(old, str):
        return "PASS" if old != "PASS" else "FAIL"
    if isinstance(old, list):
        return old[:-1]
    return {} if isinstance(old, dict) else 0.5


def tamper_fields(path: Path, kind: str, outcome: Outcome, found: Tampering, chosen: Callable[[], bool]) -> None:
    """Every field of one record, edited with the old digest and with a new one."""
    good, value, baseline = path.read_bytes(), read_record(path), outcome()
    head = good[: good.index(b"\n", 2) + 1]
    for at in places(value):
        for what, changed in changes(value, at):
            for is_resealed in (False, True):
                if chosen():
                    whole = sealed(changed) if changed else b"{}"
                    path.write_bytes(whole if is_resealed else head + whole.partition(b'",\n')[2])
                    where = f"{'.'.join(map(str, at))} {what}"
                    found.count(kind, where, path, baseline, outcome, is_resealed=is_resealed)
    path.write_bytes(good)


def tamper_file(path: Path, kind: str, outcome: Outcome, found: Tampering, *, deleting: bool = True) -> None:
    """A whole file cut, emptied, without or with another digest, or deleted."""
    good, baseline = path.read_bytes(), outcome()
    whole = {
        "cut": good[: len(good) // 2],
        "empty": b"",
        "another digest": good.replace(good[14:18], b"0000", 1),
        "no digest": b"{\n" + good.partition(b"\n")[2].partition(b"\n")[2],
        "a list": b"[]",
        "brackets": b"[" * 100_000,
        "bytes": bytes(range(256)),
    }
    for where, text in whole.items():
        path.write_bytes(text)
        found.count(kind, where, path, baseline, outcome, is_resealed=False)
    if deleting:
        path.unlink()
        found.count(kind, "deleted", path, baseline, outcome, is_resealed=False)
    path.write_bytes(good)


def swap_files(paths: list[Path], kind: str, outcome: Outcome, found: Tampering, chosen: Callable[[], bool]) -> None:
    """Each file copied over its neighbor."""
    baseline = outcome()
    for source, path in zip(paths, paths[1:] + paths[:1], strict=True):
        good = path.read_bytes()
        if chosen() and source.read_bytes() != good:
            path.write_bytes(source.read_bytes())
            found.count(kind, f"{source.name} over it", path, baseline, outcome, is_resealed=False)
            path.write_bytes(good)


def tamper_inputs(folder: Path, found: Tampering, chosen: Callable[[], bool]) -> None:
    """Files that a person writes or passes on: a load, and the calibration of the drift budget. They have no digest."""
    load, calibration = folder / "load.csv", folder / "calibration.json"
    load.write_text("4\n3\n2\n1\n")
    shutil.copyfile(REPORTS / "sigma0" / "sigma0_calibration.json", calibration)

    def budget() -> object:
        arguments = ["budget", "--load", load, "--spec", "4e2a", "--batch", "4096", "--calibration", calibration]
        errors = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            code = command(list(map(str, arguments)))
        if code == 2:
            raise MueCheckError(errors.getvalue().strip())
        return code

    baseline, text = budget(), load.read_text()
    for change in LOADS:
        load.write_text(change)
        found.count("load file", repr(change[:20]), load, baseline, budget, is_resealed=False)
    load.write_text(text)
    value = json.loads(calibration.read_text())
    for at in places(value):
        for what, changed in changes(value, at):
            if chosen():
                calibration.write_text(json.dumps(changed))
                where = f"{'.'.join(map(str, at))} {what}"
                found.count("calibration", where, calibration, baseline, budget, is_resealed=False)
    calibration.write_text(json.dumps(value))


def run(share: float, seed: int, folder: Path, kinds: Sequence[str] = ()) -> Tampering:
    """Make a ``share`` of all changes of fields and of all swaps, and every other change of a whole file."""
    chance, found = random.Random(seed), Tampering()

    def chosen() -> bool:
        return chance.random() < share

    for root in cut_studies(folder, kinds):

        def outcome(root: Path = root) -> object:
            return verdicts(root)

        for part in FOLDERS:
            paths = sorted((root / part).glob("*.json"))
            kind = {"comparisons": "comparison", "cells": "cell", "costs": "cost"}[part]
            tamper_fields(paths[0], kind, outcome, found, chosen)
            tamper_file(paths[0], kind, outcome, found, deleting=part != "costs")
            swap_files(paths, kind, outcome, found, chosen)
        log = root / "logs" / "main.log"
        tamper_file(log, "journal", outcome, found)
        shutil.rmtree(root)
    tamper_inputs(folder, found, chosen)
    return found


if __name__ == "__main__":
    sys.exit(campaign("tampering", "Tampering", run, {"share": 1.0, "seed": 0}, __doc__))
