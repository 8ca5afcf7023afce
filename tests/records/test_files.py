"""Files of a study: whole or absent, never outside the study, and no leftovers."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from mue_check.errors import StoreError
from mue_check.records import Store
from mue_check.records.files import LEFT_OVER_SECONDS, append_line, remove_leftovers, write_atomic, write_json
from mue_check.records.journal import at_work
from mue_check.report.section import Report
from mue_check.report.write import write_files
from tests.records.test_journal import make_cells
from tests.records.test_store import COLUMNS
from tests.studies import make_cell

SECRET = b"not ours"
Write = Callable[[Path], object]


def test_no_trace_of_a_write_that_was_killed(tmp_path: Path) -> None:
    """Killed between writing and moving: the record is absent, and the next attempt succeeds."""
    code = (
        "import os, sys, pathlib\n"
        "from mue_check.records.files import write_atomic\n"
        "os.replace = lambda *args, **more: os._exit(9)\n"
        "write_atomic(pathlib.Path(sys.argv[1]), b'1', alone=True)\n"
    )
    path = tmp_path / "cells" / "x.json"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code, str(path)], env=env, check=False).returncode == 9
    assert not path.exists()
    assert os.listdir(path.parent) == [".x.json.part"]
    write_atomic(path, b"2", alone=True)
    assert os.listdir(path.parent) == ["x.json"]
    write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}


def put(root: Path) -> None:
    Store(root).put(make_cell(), COLUMNS, core_seconds=1)


def log(root: Path) -> None:
    with at_work(root, make_cells()):
        pass


def report(root: Path) -> None:
    write_files(root, Report(name="s", verdict=None, conclusion="", lines=(), sections=()), {"extra.json": {"a": 1}})


def lock(root: Path) -> None:
    with Store(root).lock(make_cell()):
        pass


@pytest.mark.parametrize(
    ("write", "planted"),
    [
        (put, f"cells/.{make_cell().key}.json.part"),
        (put, f"costs/.{make_cell().key}.json.part"),
        (put, f"cells/{make_cell().key}.json"),
        (put, "cells"),
        (put, "costs"),
        (log, "logs/main.log"),
        (log, "logs"),
        (lock, f"locks/{make_cell().key}.lock"),
        (lock, "locks"),
        (report, "report.md"),
        (report, "extra.json"),
        (report, ".report.md.part"),
        (lambda root: Store(root).prepare(), "locks/probe"),
        (lambda root: Store(root).prepare(), "comparisons"),
    ],
)
def test_a_planted_link_reaches_nothing_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, planted: str
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    outside, link = tmp_path / "outside", tmp_path / "study" / planted
    link.parent.mkdir(parents=True)
    if "." in link.name or link.name == "probe":
        outside.write_bytes(SECRET)
    else:
        outside.mkdir()
    link.symlink_to(outside)
    with suppress(StoreError):  # it is refused, or the link is replaced by the file
        write(tmp_path / "study")
    assert outside.is_dir() or outside.read_bytes() == SECRET
    assert not outside.is_dir() or not list(outside.iterdir())


def test_a_study_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "study").symlink_to(tmp_path / "disk")
    Store(tmp_path / "study").prepare()
    put(tmp_path / "study")
    assert (tmp_path / "disk" / "cells" / f"{make_cell().key}.json").is_file()


def test_a_name_does_not_lead_out_of_the_study(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="outside its folder"):
        write_atomic(tmp_path / "study" / "comparisons" / ".." / ".." / "x.json", b"1", root=tmp_path / "study")
    assert not (tmp_path / "x.json").exists()


def test_leftovers_of_killed_writers_are_removed_and_fresh_ones_are_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.prepare()
    old, fresh, mine = (tmp_path / "cells" / name for name in (".0123.part", ".4567.part", "notes.part"))
    for path in (old, fresh, mine):
        path.write_text("half")
    before = time.time() - LEFT_OVER_SECONDS - 1
    for path in (old, mine):
        os.utime(path, (before, before))
    store.prepare()
    assert sorted(os.listdir(tmp_path / "cells")) == [".4567.part", "notes.part"]


def test_sweeping_while_others_write_loses_nothing(tmp_path: Path) -> None:
    def write(worker: int) -> None:
        for number in range(30):
            write_json(tmp_path / "cells" / f"{worker}-{number}.json", {"a": number})

    writers = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    (tmp_path / "cells").mkdir()
    for thread in writers:
        thread.start()
    while any(thread.is_alive() for thread in writers):
        remove_leftovers(tmp_path)
    assert len(os.listdir(tmp_path / "cells")) == 90


@pytest.mark.parametrize("name", ["x" * 300, "x\0y"])
def test_a_path_that_no_system_takes_is_one_line(tmp_path: Path, name: str) -> None:
    for act in (
        lambda: write_atomic(tmp_path / name / "a", b"1"),
        lambda: append_line(tmp_path / name / "a", "1", root=tmp_path),
        lambda: Store(tmp_path / name).prepare(),
    ):
        with pytest.raises(StoreError, match="cannot") as caught:
            act()
        assert len(str(caught.value).splitlines()) == 1
