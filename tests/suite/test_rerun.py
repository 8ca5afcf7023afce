"""Reruns of tests whose worker died or that ran out of memory. The tests inside are toys: none of them trains."""

from collections.abc import Callable

import pytest

Gpus = Callable[..., None]
DYING = """
import os, pathlib, pytest

SHOWN = pathlib.Path("shown")

def calls(name):
    with SHOWN.open("a") as file:
        file.write(f"{name} {os.environ['PYTEST_XDIST_WORKER']} {os.environ['CUDA_VISIBLE_DEVICES']}\\n")
    return SHOWN.read_text().count(f"{name} ")

@pytest.mark.parametrize("at", range(6))
def test_well(at):
    calls(f"well{at}")

def test_once():
    if calls("once") == 1:
        os.kill(os.getpid(), 9)

def test_always():
    calls("always")
    os.kill(os.getpid(), 9)

def test_wrong():
    calls("wrong")
    assert False
"""
WORKERS = """
import os
def pytest_configure(config):
    if hasattr(config, "workerinput"):
        with open("workers", "a") as file:
            file.write(f"{config.workerinput['workerid']} {os.environ['CUDA_VISIBLE_DEVICES']}\\n")
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "mue_check.pytest_plugin", "-p", "no:cacheprovider", *arguments)


def lines(pytester: pytest.Pytester, name: str) -> list[list[str]]:
    return [line.split() for line in (pytester.path / name).read_text().splitlines()]


def test_a_replacement_keeps_the_gpu_and_its_test_runs_again_once(pytester: pytest.Pytester, gpus: Gpus) -> None:
    gpus(2)
    pytester.makeconftest(WORKERS)
    pytester.makepyfile(DYING)
    result = run(pytester, "--gpus", "2", "--junitxml=junit.xml")
    assert result.ret == 1
    result.assert_outcomes(passed=7, failed=2)
    result.stdout.fnmatch_lines(["* 2 rerun*"])
    calls = lines(pytester, "shown")
    assert sorted(name for name, _, _ in calls if not name.startswith("well")) == [
        *("always", "always", "once", "once", "wrong")
    ]
    workers = dict(lines(pytester, "workers"))
    dead = [worker for name, worker, _ in calls if name == "always"] + [
        next(worker for name, worker, _ in calls if name == "once")
    ]
    assert sorted(workers) == ["gw0", "gw1", "gw2", "gw3", "gw4"]
    # a new worker for each that died, on the GPU of that one
    new = sorted(gpu for worker, gpu in workers.items() if worker not in ("gw0", "gw1"))
    assert new == sorted(workers[worker] for worker in dead)
    assert all(workers[worker] == gpu for _, worker, gpu in calls)
    text = result.stdout.str()
    assert "test_once: its worker gw" in text
    assert "test_always: its worker gw" in text
    assert "crashed while running 'test_a_replacement_keeps_the_gpu_and_its_test_runs_again_once.py::test_alw" in text
    assert "test_wrong: its worker" not in text
    junit = (pytester.path / "junit.xml").read_text()
    assert junit.count("<testcase") == junit.count("<testcase classname=") == 9


def test_a_crash_whose_rerun_passes_is_no_failure(pytester: pytest.Pytester, gpus: Gpus) -> None:
    gpus(2)
    pytester.makepyfile(DYING)
    result = run(pytester, "--gpus", "2", "-k", "well or once", "-q")
    assert result.ret == 0
    assert "= run again =" in result.stdout.str()
    assert "workers that died: gw" in result.stdout.str()


def test_a_crash_at_collection_ends_and_is_a_failure(pytester: pytest.Pytester, gpus: Gpus) -> None:
    gpus(1)
    pytester.makeconftest(WORKERS)
    pytester.makepyfile("import os; os.environ.get('PYTEST_XDIST_WORKER') and os._exit(1)\ndef test_well(): pass")
    result = run(pytester, "--gpus", "1")
    assert result.ret == 1
    assert len(lines(pytester, "workers")) == 5
    assert "no test was run: every worker died" in result.stdout.str()


def test_tests_that_never_ran_are_a_failure(pytester: pytest.Pytester, gpus: Gpus) -> None:
    gpus(1)
    pytester.makepyfile(DYING)
    result = run(pytester, "--gpus", "1", "--max-worker-restart", "0", "-k", "once or well")
    assert result.ret == 1
    result.assert_outcomes(passed=6)
    assert "1 tests were not run because workers died" in result.stdout.str()


def test_no_test_at_all_stays_exit_5(pytester: pytest.Pytester, gpus: Gpus) -> None:
    gpus(1)
    pytester.makepyfile(DYING)
    assert run(pytester, "--gpus", "1", "-k", "nothing").ret == 5


MEMORY = """
import gc, weakref
import torch

TENSORS, CALLS = [], []

def allocate(size):
    tensor = torch.zeros(size)
    TENSORS.append(weakref.ref(tensor))
    try:
        raise ValueError("the cause holds tensors too")
    except ValueError:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\\nand so on")

def test_once():
    if not TENSORS:
        allocate(10)
    assert TENSORS[0]() is None

def test_always():
    allocate(10)

def test_other():
    CALLS.append("other")
    assert len(CALLS) == 2, "an assertion"
"""


@pytest.mark.parametrize("where", ["here", "worker"])
def test_out_of_memory_is_tried_again_once(pytester: pytest.Pytester, gpus: Gpus, where: str) -> None:
    gpus(1)
    if where == "here":  # the suites switch it on wherever they run
        pytester.makeconftest("from mue_check.suite import rerun\ndef pytest_configure(config): rerun.register(config)")
    pytester.makepyfile(MEMORY)
    result = run(pytester, *(["--gpus", "1"] if where == "worker" else []))
    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=2)
    text = result.stdout.str()
    for name in ("once", "always"):
        assert f"::test_{name}: out of memory: run again after: CUDA out of memory. Tried to allocate 2 GiB\n" in text
    assert "::test_other: out of memory" not in text
    assert "E           torch.OutOfMemoryError: CUDA out of memory" in text
    assert "an assertion" in text
