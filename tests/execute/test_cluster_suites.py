"""``pytest suites/ --cluster``: the same records as without, one-line refusals, and nothing left behind."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mue_check.cluster import ClusterInfo
from tests.studies import records

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra: cluster)")
ROOT = Path(__file__).parents[2]
Run = Callable[..., Any]
"""Runs pytest in this process (tests/conftest.py)."""
QUICK = ("suites/test_width.py", "-k", "test_scales and not width_of")


def outer_environment(**more: str) -> dict[str, str]:
    """What a user's shell has: nothing of Ray."""
    return {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | more


def is_open(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def test_the_suites_give_the_same_on_a_cluster(found: ClusterInfo, tmp_path: Path, run_pytest_here: Run) -> None:
    quiet, there = tmp_path / "quiet" / "study", tmp_path / "there" / "study"
    result = run_pytest_here(*QUICK, "--study", there, f"--cluster={found.address}", "--cluster-workers=1")
    assert result.code == 0, result.out + result.errors
    assert "1 passed" in result.out
    assert f"mue_check: {found}" in result.out
    assert run_pytest_here(*QUICK, "--study", quiet).code == 0
    assert records(there) == records(quiet) != {}


def test_a_local_cluster_ends_with_its_process_however_that_dies() -> None:
    code = "from mue_check.cluster import reach; print(reach('local', print).address, flush=True); input()"
    command = [sys.executable, "-c", code]
    env = outer_environment(PYTHONPATH=str(ROOT))
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # what is to be called when it ends
        address = process.stdout.readline().strip()
        assert is_open(address)
        process.kill()
    deadline = time.monotonic() + 60
    while is_open(address) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_open(address)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cluster=here"], "--cluster 'here': write local, or HOST:PORT of a Ray head"),
        (["--cluster=127.0.0.1:9"], "--cluster 127.0.0.1:9: nothing answers there (Connection refused)"),
        (["--cluster=local", "-n", "2"], "--cluster: cannot be combined with -n: it starts its own workers"),
        (["--cluster=local", "--pdb"], "--cluster: cannot be combined with --pdb: it starts its own workers"),
        (["--cluster=local", "--cluster-workers=0"], "--cluster-workers 0: must be at least 1"),
        (["--cluster=local", "--gpu-share=1.5"], "--gpu-share 1.5: must be above 0 and at most 1"),
        (["--gpu-share=0.5"], "--gpu-share goes with --cluster"),
    ],
)
def test_bad_options_are_one_line_and_exit_4(
    tmp_path: Path, arguments: list[str], says: str, run_pytest_here: Run
) -> None:
    result = run_pytest_here("suites/test_width.py", *arguments, "--study", tmp_path / "study")
    assert result.code == 4, result.out + result.errors
    (error,) = result.error_lines
    assert says in error
    assert not (tmp_path / "study").exists()


def test_a_tier_for_gpus_needs_a_cluster_with_gpus(found: ClusterInfo, tmp_path: Path, run_pytest_here: Run) -> None:
    if found.gpus:
        pytest.skip("this machine has a GPU")
    arguments = (f"--cluster={found.address}", "--tier=gpu", "--gpu-share=0.5", "--study", tmp_path / "study")
    result = run_pytest_here("suites/test_width.py", *arguments)
    assert result.code == 4, result.out + result.errors
    (error,) = result.error_lines
    assert f"--cluster {found.address}: --tier gpu needs 0.5 GPU per task, and the cluster" in error


def test_without_ray_one_line_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys, pytest; sys.modules['ray'] = None; sys.exit(pytest.main(sys.argv[1:]))"
    result = subprocess.run(
        [sys.executable, "-c", code, "suites/test_width.py", "--cluster=local", f"--study={tmp_path / 'study'}"],
        cwd=ROOT,
        env=outer_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 4
    assert "--cluster needs Ray: pip install 'mue_check[cluster]'" in result.stderr
