"""A full disk at every place where a study is written: one line that names the file, and no harm to the records.

``python -m tests.reliability.disk_full --cases 20``. A place is one call of the system: to make a folder, to open, fill
or flush a temporary file, to move it into place, or to lock a cell. From that call on the disk is full. The study is
then measured and reported again with room, and must be that of an undisturbed run.
"""

import errno
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mue_check.catalog import write_report
from mue_check.errors import MueCheckError, StoreError
from mue_check.execute import ensure
from mue_check.execute.process import prepare_process
from mue_check.records import Store
from mue_check.study.comparison import Side, save_comparison
from tests.reliability.page import campaign
from tests.reliability.tiny import MODEL, TRAIN, leftovers, tiny_cells
from tests.studies import comparison_of, records

CALLS = ("mkdir", "open", "fsync", "replace", "fdopen")
"""The calls of ``os`` that can find the disk full. ``fdopen`` stands for the first write to the file."""


def measure_and_report(root: Path) -> None:
    """Everything that a run of the suites writes."""
    store, cells = Store(root), tiny_cells(4)
    store.prepare()
    ensure(cells, store)
    sides = tuple(
        Side(label=label, size=1, model=f"{MODEL},{TRAIN}", cells=tuple(cell.key for cell in part), first_seed=first)
        for label, part, first in (("a", cells[:2], 0), ("b", cells[2:], 2))
    )
    save_comparison(root, comparison_of(*sides, axis="control", expected=""))
    write_report(root)


@contextmanager
def full_from(place: int, root: Path) -> Iterator[list[str]]:
    """The disk is full from the call with that number on. Yields the calls that were made below ``root``."""
    made: list[str] = []

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if (name != "open" or args[1] & os.O_CREAT) and _is_ours(args, more, root):
                made.append(name)
                if len(made) > place:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **more)

        return call

    patches = [patch.object(os, name, wrapped(name, getattr(os, name))) for name in CALLS]
    for each in patches:
        each.start()
    try:
        yield made
    finally:
        for each in patches:
            each.stop()


def _is_ours(args: tuple[Any, ...], more: dict[str, Any], root: Path) -> bool:
    """Whether a call is about the study: by its path, or by the folder or file that is open."""
    handle = args[0] if isinstance(args[0], int) else more.get("dir_fd", more.get("src_dir_fd"))
    where = os.readlink(f"/proc/self/fd/{handle}") if handle is not None else os.fspath(args[0])
    return str(where).startswith(str(root))


@dataclass(kw_only=True)
class DiskFull:
    """What happened at each place."""

    places: int = 0
    of: int = 0
    at: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The result in Markdown."""
        where = ", ".join(f"{count} {what}" for what, count in sorted(self.at.items()))
        troubles = "".join(f"\n* {trouble}" for trouble in self.troubles)
        return (
            f"The disk was full at {self.places} of the {self.of} places where a study of four cells, one question and "
            f"its report is written ({where}). {len(self.troubles)} times there was more than one line, a line without "
            f"the file, or a study that was not that of an undisturbed run after measuring again with room.{troubles}"
        )


def run(cases: int, folder: Path) -> DiskFull:
    """Fill the disk at ``cases`` places, evenly spread over all."""
    prepare_process()
    with full_from(sys.maxsize, folder / "quiet") as calls:
        measure_and_report(folder / "quiet")
    expected, found = records(folder / "quiet"), DiskFull(of=len(calls))
    for place in sorted({at * len(calls) // cases for at in range(cases)}):
        found.places += 1
        found.at[calls[place]] += 1
        where, root = f"at call {place} ({calls[place]})", folder / f"full-{place}"
        try:
            with full_from(place, root):
                measure_and_report(root)
            found.troubles.append(f"{where} nothing was said")
        except StoreError as error:
            if len(str(error).splitlines()) != 1 or str(root) not in str(error):
                found.troubles.append(f"{where}: {error}")
        except Exception as error:  # the campaign counts what it finds
            found.troubles.append(f"{where} {type(error).__name__}: {error}")
        try:
            measure_and_report(root)
        except MueCheckError as error:
            found.troubles.append(f"{where}, then with room: {error}")
        if records(root) != expected or leftovers(root):
            found.troubles.append(f"{where}: other records or leftovers")
    return found


if __name__ == "__main__":
    sys.exit(campaign("disk_full", "Full disk", run, {"cases": 20}, __doc__))
