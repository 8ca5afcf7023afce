"""``mue_check bench``: end to end in small, what it writes, and how it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mue_check.bench import plain_loop
from mue_check.bench.cases import Case, Plan, make_plan
from mue_check.bench.results import Result
from mue_check.bench.run import run_bench
from mue_check.cli import bench, main

TINY = Case(model="d=32,H=32", batch=2, context=8, runs=2)
MIXTURE = Case(model="d=32,L=2,8e2a,h=16", batch=2, context=8, runs=2)
PLAN = Plan(
    device="cpu",
    sweep=(TINY, MIXTURE),
    latency=(("capacity", MIXTURE),),
    coordinates=(TINY,),
    rounds=2,
    seconds=0.001,
    matmul=64,
    copy_mib=1,
)
WAYS = ["eager", "alone", "plain", "vmap", "eager", "alone", "plain", "plain batched", "vmap"]


@pytest.fixture(scope="module")
def result() -> Result:
    return run_bench(PLAN, command="mue_check bench")


def test_one_row_for_each_way(result: Result) -> None:
    assert [row.way for row in result.steps] == WAYS
    for row in result.steps:
        assert row.seconds is not None
        assert row.times is not None
        assert 0 < row.seconds.low <= row.seconds.median <= row.seconds.high
        assert (row.times.median == 1) == (row.way == "eager")
        assert (row.share_of_matmul or 0) > 0
        assert (row.share_of_bandwidth or 0) > 0


def test_a_mixture_against_dense(result: Result) -> None:
    (row,) = result.latency
    assert (row.way, row.grows) == ("eager", "capacity")
    assert row.ratio is not None
    assert row.ratio.low > 0
    assert row.case.dense.model == "d=32,L=2,H=32"


def test_bars_of_absent_devices_are_not_measured(result: Result) -> None:
    assert {bar.device for bar in result.bars} == {"cpu", "cuda"}
    assert all(bar.measured is None and bar.reached is None for bar in result.bars)


def test_json_holds_every_part(result: Result) -> None:
    read = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert set(read) == {
        *("schema", "device", "device_name", "torch", "threads", "command"),
        *("ceilings", "steps", "latency", "coordinates", "growth", "bars"),
    }
    assert set(read["steps"][0]) == {
        *("case", "way", "seconds", "times", "share_of_matmul", "share_of_bandwidth", "note")
    }
    assert read["ceilings"]["flops_per_second"]["fp32"] > 0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_plans_hold_the_shapes_of_the_bars(device: str) -> None:
    from mue_check.bench.bars import LATENCY_BARS, SPEED_BARS
    from mue_check.precision import PRECISIONS

    plan = make_plan(device, PRECISIONS if device == "cuda" else ("fp32",))
    assert {bar.case for bar in SPEED_BARS if bar.device == device} <= set(plan.sweep)
    assert {bar.case for bar in LATENCY_BARS if bar.device == device} <= {mixture for _, mixture in plan.latency}
    assert {case.runs for case in plan.sweep} >= {1, 4, 8, 16, 32}


def test_quick_writes_json_table_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "bench.json"
    assert main(["bench", "--device", "cpu", "--quick", "--json", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "CUDA: not measured" in printed.out
    table = out.with_suffix(".md").read_text()
    assert table.replace("![Step times, mixtures against dense, growth](bench.png)\n\n", "") == printed.out
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    read = json.loads(out.read_text())
    assert {row["way"] for row in read["steps"]} == {"eager", "alone", "plain", "plain batched", "vmap"}


def test_a_mismatch_exits_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(plain_loop, "schedule", lambda train: lambda step: 2.0)
    assert main(["bench", "--device", "cpu", "--quick"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert "plain does not train like the fused runs" in line


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    try:
        code = main(["bench", *arguments])
    except SystemExit as left:
        code = left.code  # type: ignore[assignment]
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_usage_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--device" in usage_error(capsys, "--device", "tpu")
    assert "precision tf32 is that of a GPU" in usage_error(capsys, "--device", "cpu", "--precision", "tf32")
    assert "ends in .json" in usage_error(capsys, "--device", "cpu", "--json", str(tmp_path))
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "cannot write there" in usage_error(capsys, "--device", "cpu", "--json", str(blocked / "out.json"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what is absent")
def test_an_absent_device_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no CUDA device" in usage_error(capsys, "--device", "cuda")


def test_help_is_quick_to_load() -> None:
    code = "import sys; from mue_check.cli import bench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
    assert bench.run.__doc__
