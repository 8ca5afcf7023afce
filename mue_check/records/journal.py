"""Logs of what each process measured: ``logs/<worker>.log`` of the study has a line for each start and end."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing import current_process
from pathlib import Path

from mue_check.errors import hide_secrets
from mue_check.records.cell import AnyCell
from mue_check.records.files import append_line


@contextmanager
def at_work(root: Path, cells: Sequence[AnyCell]) -> Iterator[None]:
    """Log to the study ``root`` that this process measures these cells, and how that ended. No cells, no line.

    Lines hold the time (UTC), the measurement, the numbers of cells and runs, wall seconds and CUDA_VISIBLE_DEVICES.
    They are written immediately, so the last line of a killed process shows what it was doing.
    """
    if not cells:
        yield
        return
    process = current_process().name
    worker = os.environ.get("PYTEST_XDIST_WORKER") or ("main" if process == "MainProcess" else process)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    runs = sum(cell.runs for cell in cells)
    what = f"{cells[0].measurement} {cells[0].about}"
    what = f"cells {len(cells)}, runs {runs}, CUDA_VISIBLE_DEVICES={visible}: {what}"
    began = time.monotonic()
    _write(root, worker, f"begins {what}")
    ending = "done"
    try:
        yield
    except BaseException as error:
        ending = f"stopped by {type(error).__name__}"
        raise
    finally:
        _write(root, worker, f"{ending} in {time.monotonic() - began:.1f} s: {what}")


def _write(root: Path, worker: str, line: str) -> None:
    line = hide_secrets(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}")
    append_line(root / "logs" / f"{worker}.log", line, root=root)
