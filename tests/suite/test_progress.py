import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from _pytest._io import TerminalWriter
from rich.text import Text

from mue_check.suite.progress import Forecast, Progress, ProgressLine, shows_progress

ROOT = Path(__file__).parents[2]
Gpus = Callable[..., None]


def screen(written: str) -> list[str]:
    """What a terminal shows; it knows return, newline, up, and erase the line."""
    rows, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            rows += [""] * (row == len(rows))
        elif part == "\x1b[2K":
            rows[row] = ""
        elif part == "\x1b[1A":
            row -= 1
        elif not part.startswith("\x1b"):
            rows[row] = rows[row].ljust(column)[:column] + part + rows[row][column + len(part) :]
            column += len(part)
    return rows


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_stays_below_everything_that_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TERM", "xterm"), ("COLUMNS", "40"), ("CI", "")):
        monkeypatch.setenv(name, value)
    plain, shown = TerminalWriter(io.StringIO()), TerminalWriter(Terminal())
    stream = shown._file
    long = "12/30 tests  gw0 " + "x" * 50
    line = ProgressLine(shown, Text(long, no_wrap=True, overflow="crop"))
    plain.line()
    pieces = [".", ".", "F", "\n", "a result: " + "0.123456789 " * 9 + "\n", "x", "y\n[brackets]:smile:\nz", "\n"]
    for number, text in enumerate(pieces):
        for writer in (plain, shown):
            writer.write(text, green=number == 2, flush=True)
        rows = [row for row in screen(stream.getvalue()) if row]
        assert rows[-1] == long[:40]  # cropped to the terminal, as nothing else is
        complete = plain._file.getvalue().rpartition("\n")[0]
        assert rows[:-1] == [row for row in screen(complete) if row]
    shown.write("the end")
    line.close()
    assert shown._file is stream
    rows = [row for row in screen(stream.getvalue()) if row]
    assert rows[-1] == "the end"
    assert long[:40] not in rows


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, True),
        ({"isatty": False}, False),
        ({"verbosity": -1}, False),
        ({"verbosity": 1}, True),
        ({"usepdb": True}, False),
        ({"collectonly": True}, False),
        ({"CI": "true"}, False),
        ({"BUILD_NUMBER": "7"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_who_sees_the_progress(monkeypatch: pytest.MonkeyPatch, change: dict[str, object], wanted: bool) -> None:
    world = {"isatty": True, "verbosity": 0, "usepdb": False, "collectonly": False, "TERM": "xterm", **change}
    for name in ("CI", "BUILD_NUMBER", "TERM"):
        monkeypatch.setenv(name, str(world.get(name, "")))
    config = SimpleNamespace(
        pluginmanager=SimpleNamespace(
            get_plugin=lambda name: SimpleNamespace(isatty=world["isatty"]),
        ),
        get_verbosity=lambda: world["verbosity"],
        option=SimpleNamespace(usepdb=world["usepdb"], collectonly=world["collectonly"]),
    )
    assert shows_progress(config) is wanted


def on_a_terminal(command: list[str]) -> tuple[int, str]:
    """Exit code, and all that is written to a terminal of 150 columns."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "150", "CI": "", "BUILD_NUMBER": ""}
    process = subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    written = b""
    with open(ours, "rb", buffering=0) as terminal:
        while True:
            try:
                part = terminal.read(65536)
            except OSError:  # Linux: the other end is closed
                break
            if not part:
                break
            written += part
    return process.wait(), written.decode().replace("\r\n", "\n")


def test_without_workers_the_line_is_not_captured_with_the_test(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "suites/test_router.py", "-k", "weight-sum", "--dist", "worksteal"]
    code, written = on_a_terminal([*command, "--study", str(tmp_path)])
    assert code == 0, written
    assert "1/1 tests, 0" in written
    assert not [row for row in screen(written) if "1/1 tests" in row]


def test_the_time_left_follows_from_the_plan_and_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    forecast = Forecast(["--no-such-option"])
    progress = Progress(SimpleNamespace(), tmp_path, forecast)
    forecast.by_test = {"a::test_one": (2, 10.0), "a::test_two": (4, 40.0), "a::test_three": (1, 50.0)}
    progress.total = 3
    assert str(progress.__rich__()) == "0/3 tests, 0/7 cells, 0:00"
    monkeypatch.setattr("time.monotonic", lambda: 130.0)
    progress.done, progress.last = {"a::test_one"}, ("width", "FAIL")
    progress.running = {"gw0": "a::test_two"}
    (tmp_path / "cells").mkdir()
    for number in range(2):
        (tmp_path / "cells" / f"{number}.json").touch()
    # of 100 units, 10 are done and 2 of the 4 cells of the next 40
    shown = progress.__rich__()
    assert str(shown) == "1/3 tests, 2/5 cells, 0:30, 1:10 left  FAIL width  gw0 two"
    assert [span.style for span in shown.spans] == ["bold red"]


def test_two_workers_train_a_shared_reference_once_and_say_how_far_they_are(gpus: Gpus, tmp_path: Path) -> None:
    """A real run: stand-in GPUs, one reference and two targets."""
    gpus(4)
    study = tmp_path / "study"
    suite = ["suites/test_activated_experts.py", "suites/test_width.py", "-k", "early", "--tier", "smoke"]
    gpu = ["--gpus", "4", "--gpus-per-worker", "2", "--study", str(study)]
    code, written = on_a_terminal([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *suite, *gpu])
    assert code == 0, written
    shown = re.findall(
        r"(\d)/2 tests, (\d+)(?:/\d+)? cells, 0:\d\d(?:, 0:\d\d left)?(?:  PASS \S+)?((?:  gw\d early_curve\[\S+\])*)",
        written,
    )
    assert shown, written
    assert any(busy for _, _, busy in shown)
    assert [int(cells) for _, cells, _ in shown] == sorted(int(cells) for _, cells, _ in shown)
    rows = screen(written)
    assert not [row for row in rows if "/2 tests" in row]  # the line is gone
    assert len([row for row in rows if re.match(r"early-\S+-complete_mue: [A-Z]+: log2 loss ratio", row)]) == 2
    logs = {path.stem: path.read_text() for path in study.glob("logs/*")}
    assert sorted(logs) == ["gw0", "gw1"]
    for worker, pair in (("gw0", "0,1"), ("gw1", "2,3")):
        assert logs[worker].count("\n") == logs[worker].count(f"CUDA_VISIBLE_DEVICES={pair}: early_curve d=") > 0
    done = [line.partition(": ")[2] for line in "".join(logs.values()).splitlines() if " done in " in line]
    assert len(done) == len(set(done)) == len(list(study.glob("cells/*.json"))) == 3
