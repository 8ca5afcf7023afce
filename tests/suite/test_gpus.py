"""Which worker gets which GPU, and what is refused. The tests inside are toys: only their environment counts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mue_check.errors import SpecError
from mue_check.suite.gpus import list_gpus, shares, visible_ids
from tests.conftest import QUICK

Gpus = Callable[..., None]
CUT = """GPU 0: NVIDIA A100 (UUID: GPU-0aaaaaaa-bbbb)
  MIG 3g.20gb     Device  0: (UUID: MIG-11111111-cccc)
  MIG 3g.20gb     Device  1: (UUID: MIG-22222222-cccc)
GPU 1: NVIDIA A100 (UUID: GPU-1aaaaaaa-bbbb)
"""
SHOW = """
import os
def pytest_configure(config):
    if hasattr(config, "workerinput"):
        shown = [os.environ.get(name, "-") for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "OMP_NUM_THREADS")]
        open("env-" + config.workerinput["workerid"], "w").write(" ".join(shown))
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "mue_check.pytest_plugin", "-p", "no:cacheprovider", *arguments)


def environments(pytester: pytest.Pytester, *arguments: str) -> list[str]:
    """What each worker finds in its environment before anything is collected, by worker."""
    pytester.makeconftest(SHOW)
    pytester.makepyfile("def test_nothing(): pass")
    result = run(pytester, *arguments)
    assert result.ret == 0, result.outlines + result.errlines
    return [path.read_text() for path in sorted(pytester.path.glob("env-*"))]


def test_workers_share_a_gpu(pytester: pytest.Pytester, gpus: Gpus) -> None:
    gpus(1)
    assert environments(pytester, "--gpus", "1", "--workers-per-gpu", "2") == ["0 PCI_BUS_ID 1"] * 2


@pytest.mark.parametrize(
    ("count", "each", "outer", "shown"),
    [
        (4, 1, None, ["0", "1", "2", "3"]),
        (4, 2, None, ["0,1", "2,3"]),
        (2, 1, "5, GPU-3aaaaaaa,1", ["5", "GPU-3aaaaaaa"]),
    ],
)
def test_the_gpus_are_shared_out(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch, count: int, each: int, outer: str | None, shown: list[str]
) -> None:
    """Those that were chosen outside stay as they were named, in the order that they were named by."""
    gpus(8)
    if outer is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", outer)
    order = {} if outer else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert shares(count, each) == [{"CUDA_VISIBLE_DEVICES": ids, **order, "OMP_NUM_THREADS": "1"} for ids in shown]


def test_without_the_option_nobody_asks_for_gpus(pytester: pytest.Pytester, gpus: Gpus, tmp_path: Path) -> None:
    gpus(8)
    assert environments(pytester, "-n", "1") == ["- - -"]
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("outer", "ids"),
    [
        (None, ["MIG-11111111-cccc", "MIG-22222222-cccc", "1"]),
        ("1", ["1"]),
        ("MIG-2222,1", ["MIG-2222", "1"]),
        ("01,0", ["01", "0"]),
        ("1,-1,0", ["1"]),
        ("-1", []),
        ("", []),
    ],
)
def test_what_is_visible(gpus: Gpus, outer: str | None, ids: list[str]) -> None:
    gpus(CUT)
    assert visible_ids(list_gpus(), outer) == ids


@pytest.mark.parametrize(
    ("outer", "says"),
    [
        ("2", "CUDA_VISIBLE_DEVICES='2': no GPU '2', there are 0, GPU-0aaaaaaa-bbbb, MIG-11111111-cccc, MIG-2"),
        ("0,GPU-3", "no GPU 'GPU-3'"),
        ("GPU-", "no GPU 'GPU-'"),  # fits two
        ("1,,0", "no GPU ''"),
        ("all", "no GPU 'all'"),
        ("1,0,1", "CUDA_VISIBLE_DEVICES='1,0,1': 1 is there twice"),
        ("1,GPU-1aaa", "GPU-1aaa is there twice"),
        ("0,MIG-1111", "MIG-1111 is there twice"),  # a GPU that is cut is its first part to CUDA
    ],
)
def test_ids_that_nobody_has(gpus: Gpus, outer: str, says: str) -> None:
    gpus(CUT)
    with pytest.raises(SpecError, match="CUDA_VISIBLE_DEVICES") as error:
        visible_ids(list_gpus(), outer)
    assert says in str(error.value)


REFUSED = [
    (["--gpus", "3"], "--gpus 3: this machine has 2 GPUs (0, 1)"),
    (["--gpus", "0"], "--gpus 0: must be above 0"),
    (["--gpus-per-worker", "2"], "--gpus-per-worker 2: goes with --gpus N"),
    (["--workers-per-gpu", "2"], "--workers-per-gpu 2: goes with --gpus N"),
    (["--gpus", "2", "--workers-per-gpu", "0"], "--workers-per-gpu 0: must be above 0"),
    (
        ["--gpus", "2", "--gpus-per-worker", "2", "--workers-per-gpu", "2"],
        "--workers-per-gpu 2: must be above 0, and 1",
    ),
    (["--gpus", "2", "--gpus-per-worker", "0"], "--gpus-per-worker 0: must be above 0 and divide --gpus 2"),
    (["--gpus", "3", "--gpus-per-worker", "2"], "--gpus-per-worker 2: must be above 0 and divide --gpus 3"),
    (["--gpus", "2", "-n", "2"], "--gpus 2: cannot be combined with -n"),
    (["--gpus", "2", "--tx", "popen"], "--gpus 2: cannot be combined with --tx"),
    (["--gpus", "2", "-d"], "--gpus 2: cannot be combined with -d"),
    (["--gpus", "2", "--dist", "loadfile"], "--gpus 2: cannot be combined with --dist loadfile"),
    (["--gpus", "2", "--pdb"], "--gpus 2: cannot be combined with --pdb"),
    (["--gpus", "2", "-p", "no:xdist"], "--gpus 2: needs pytest-xdist, which is not installed or is disabled"),
]


def refused(pytester: pytest.Pytester, *arguments: str) -> str:
    """The one line of a usage error, before the toy is looked at."""
    pytester.makepyfile("import pathlib\npathlib.Path('collected').touch()\ndef test_nothing(): pass")
    plain = ("-p", "mue_check.pytest_plugin", "-p", "no:cacheprovider", *QUICK, "--assert=plain")
    result = pytester.runpytest_inprocess(*plain, *arguments)
    assert result.ret == 4, result.outlines + result.errlines
    (line,) = [line for line in result.errlines if line.strip()]
    assert not [line for line in result.outlines if line.strip()]
    assert not (pytester.path / "collected").exists()
    return line


@pytest.mark.parametrize(("arguments", "says"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_a_bad_command_line_is_one_line(pytester: pytest.Pytester, gpus: Gpus, arguments: list[str], says: str) -> None:
    gpus(2)
    assert refused(pytester, *arguments).startswith(f"ERROR: {says}")


@pytest.mark.parametrize(
    ("outer", "says"),
    [
        ("", "CUDA_VISIBLE_DEVICES='' leaves no GPU"),
        ("1", "CUDA_VISIBLE_DEVICES='1' leaves 1 GPUs (1)"),
        ("7,8", "CUDA_VISIBLE_DEVICES='7,8': no GPU '7', there are 0, GPU-0aaaaaaa-bbbb, 1, GPU-1aaaaaaa-bbbb"),
    ],
)
def test_too_few_are_left(
    pytester: pytest.Pytester, gpus: Gpus, monkeypatch: pytest.MonkeyPatch, outer: str, says: str
) -> None:
    gpus(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", outer)
    assert refused(pytester, "--gpus", "2") == f"ERROR: --gpus 2: {says}"


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("No devices were found", 0, "no GPU was found: nvidia-smi lists none: No devices were found"),
        ("has failed because\nit has no driver", 9, "no GPU was found: nvidia-smi ended with 9: has failed because"),
    ],
)
def test_nvidia_smi_knows_none(pytester: pytest.Pytester, gpus: Gpus, text: str, code: int, says: str) -> None:
    gpus(text, code)
    assert refused(pytester, "--gpus", "1") == f"ERROR: --gpus 1: {says}"


def test_there_is_no_nvidia_smi(pytester: pytest.Pytester, gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    said = refused(pytester, "--gpus", "1")
    assert said == "ERROR: --gpus 1: no GPU was found: nvidia-smi cannot be run: No such file or directory"


def test_a_part_of_a_gpu_comes_alone(pytester: pytest.Pytester, gpus: Gpus) -> None:
    gpus(CUT)
    assert "2: a process can use only one MIG device" in refused(pytester, "--gpus", "2", "--gpus-per-worker", "2")


@pytest.mark.parametrize(("tier", "target"), [((), "d256"), (("--tier", "smoke"), "d64")])
def test_the_tier_is_gpu_unless_it_is_given(
    gpus: Gpus, tmp_path: Path, tier: tuple[str, ...], target: str, run_pytest_here: Callable[..., Any]
) -> None:
    gpus(2)
    study = ("--study", tmp_path / "study")
    result = run_pytest_here("suites/test_width.py", "--gpus", "2", *tier, "--collect-only", "-q", *study)
    assert result.code == 0, result.out + result.errors
    assert f"test_width.py::test_transfer[markov-width-{target}]" in result.out
