"""kill -9 at random moments of measuring: after resuming, the records are those of an undisturbed run, byte for byte.

``python -m tests.reliability.kills --cases 200``. Two processes share a study. One of them is killed, both are started
again, and so on until the study is complete; then a new study begins, until there were enough kills.
"""

import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mue_check.execute import ensure
from mue_check.execute.process import prepare_process
from mue_check.records import Cell, Store
from tests.reliability.page import campaign
from tests.reliability.tiny import leftovers, tiny_cells
from tests.studies import records

CELLS = 8


@dataclass(kw_only=True)
class Kills:
    """What happened. ``landed``: how many processes were writing a file when they were killed."""

    kills: int = 0
    studies: int = 0
    landed: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The result in Markdown."""
        where = ", ".join(f"{count} {what}" for what, count in sorted(self.landed.items()))
        troubles = "".join(f"\n* {trouble}" for trouble in self.troubles)
        return (
            f"{self.kills} kills of one of two processes that measure {CELLS} cells, in {self.studies} studies "
            f"({where}). Every study was completed by the processes that came after; {len(self.troubles)} had records "
            f"other than those of an undisturbed run, or leftovers.{troubles}"
        )


def start(root: Path, cells: list[Cell]) -> int:
    """Measure in a child process; returns its id. It is forked, so that it begins at once."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ensure(cells, Store(root))
            code = 0
        finally:
            os._exit(code)
    return child


def finished(child: int) -> int | None:
    """The exit code of a child, if it has ended."""
    done, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def disturb(root: Path, cells: list[Cell], longest: float, chance: random.Random, wanted: int, found: Kills) -> None:
    """Kill processes at random moments of this study until it is complete."""
    store = Store(root)
    while not all(store.has(cell) for cell in cells):
        children = [start(root, cells) for _ in range(2)]
        time.sleep(chance.uniform(0, longest))
        victim = chance.choice(children)
        ended = finished(victim)
        if ended:
            found.troubles.append(f"after {found.kills} kills a process ended with {ended} before it was killed")
        if ended is None:
            if found.kills < wanted:
                os.kill(victim, signal.SIGKILL)
                found.kills += 1
                found.landed["inside a write" if leftovers(root) else "elsewhere"] += 1
            os.waitpid(victim, 0)
        for child in (child for child in children if child != victim):
            if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
                found.troubles.append(f"after {found.kills} kills a process that was not killed ended with {code}")
                return


def run(cases: int, seed: int, folder: Path) -> Kills:
    """Kill ``cases`` processes."""
    prepare_process()
    cells, chance, found = tiny_cells(CELLS), random.Random(seed), Kills()
    quiet = Store(folder / "quiet")
    quiet.prepare()
    began = time.monotonic()
    os.waitpid(start(quiet.root, cells), 0)
    longest, expected = time.monotonic() - began, records(quiet.root)
    if len(expected) != CELLS:
        raise SystemExit("the undisturbed run failed")
    while found.kills < cases:
        found.studies += 1
        rough = Store(folder / f"rough-{found.studies}")
        rough.prepare()
        disturb(rough.root, cells, longest, chance, cases, found)
        if records(rough.root) != expected:
            found.troubles.append(f"study {found.studies} has other records (seed {seed})")
        if left := leftovers(rough.root):
            found.troubles.append(f"study {found.studies} has {len(left)} leftovers (seed {seed})")
    return found


if __name__ == "__main__":
    sys.exit(campaign("kills", "Kills", run, {"cases": 200, "seed": 0}, __doc__))
