import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mue_check import TrainSpec
from mue_check.records import Cell
from mue_check.records.journal import at_work
from tests.studies import make_cell

KILLED = """
import os, pathlib, runpy, sys
from mue_check.records.journal import at_work
with at_work(pathlib.Path(sys.argv[2]), runpy.run_path(sys.argv[1])["make_cells"]()):
    os.kill(os.getpid(), 9)
"""
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
WHAT = "cells 2, runs 6, CUDA_VISIBLE_DEVICES={}: loss_grid d=32,L=1,H=32 B=32,T=20 on markov, rule complete_mue"


def make_cells() -> list[Cell]:
    train = TrainSpec(steps=20, batch=2, context=16)
    return [make_cell(train=train, values=(0.1, 0.2, 0.3), seeds=(seed,)) for seed in (1, 2)]


def lines(root: Path, worker: str, visible: str) -> list[str]:
    """What the worker's log says, in few words."""
    what = WHAT.format(visible)
    found = (root / "logs" / f"{worker}.log").read_text().splitlines()
    assert all(line.endswith(what) for line in found), (found, what)
    return [re.sub(TIME, "at", re.sub(r"\d+\.\d s:", "s", line.removesuffix(what).strip())) for line in found]


def test_a_log_says_what_was_begun_and_how_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with at_work(tmp_path, []):
        pass
    assert not (tmp_path / "logs").exists()
    with at_work(tmp_path, make_cells()):
        pass
    assert lines(tmp_path, "main", "all") == ["at begins", "at done in s"]
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    with pytest.raises(MemoryError), at_work(tmp_path, make_cells()):
        raise MemoryError
    assert lines(tmp_path, "gw3", "5,6") == ["at begins", "at stopped by MemoryError in s"]


def test_the_log_of_a_killed_process_says_what_it_was_at(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": "7"}
    env.pop("PYTEST_XDIST_WORKER", None)
    command = [sys.executable, "-c", KILLED, __file__, str(tmp_path)]
    assert subprocess.run(command, env=env, check=False).returncode == -signal.SIGKILL
    assert lines(tmp_path, "main", "7") == ["at begins"]
