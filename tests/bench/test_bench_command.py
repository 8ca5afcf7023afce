"""``mue_check bench``: end to end on small cases, what it writes, and its refusals."""

import json
import math
import time
from pathlib import Path

import pytest
import torch

from mue_check.bench import BenchPlan, make_plan, run_bench, torch_ways, ways
from mue_check.bench.cases import UNCOMPILED, BenchCase, BenchTask
from mue_check.bench.conclusions import BARS
from mue_check.bench.results import BenchResult
from mue_check.cli import main
from mue_check.precision import PRECISIONS

TINY = BenchCase(model="d=32,H=32", batch=2, context=8, runs=2)
MIXTURE = BenchCase(model="d=32,L=2,8e2a,h=16", batch=2, context=8, runs=2)
TASKS = (
    BenchTask(kind="steps", cases=(TINY,), ways=UNCOMPILED),
    BenchTask(kind="steps", cases=(MIXTURE,), ways=UNCOMPILED),
    BenchTask(kind="latency", cases=(MIXTURE,), ways=("captured", "eager"), grows="capacity"),
    BenchTask(kind="coordinates", cases=(TINY,)),
)
PLAN = BenchPlan(device="cpu", tasks=TASKS, rounds=2, seconds=0.001, matmul=64, copy_mib=1)
CPU_WAYS = ["eager", "alone", "plain", "vmap", "eager", "alone", "plain", "plain batched", "vmap"]


@pytest.fixture(scope="module")
def reports() -> list[tuple[BenchResult, str]]:
    return []


@pytest.fixture(scope="module")
def result(reports: list[tuple[BenchResult, str]]) -> BenchResult:
    return run_bench(PLAN, command="mue_check bench", report=lambda result, line: reports.append((result, line)))


def test_one_row_for_each_way(result: BenchResult) -> None:
    assert [row.way for row in result.steps] == CPU_WAYS
    for row in result.steps:
        assert row.seconds is not None
        assert row.times is not None
        assert 0 < row.seconds.low <= row.seconds.median <= row.seconds.high
        assert (row.times.median == 1) == (row.way == "eager")
        assert (row.share_of_matmul or 0) > 0
        assert (row.share_of_bandwidth or 0) > 0
    assert not result.problems
    assert not result.not_reached


def test_a_mixture_against_dense(result: BenchResult) -> None:
    (row,) = result.latency
    assert (row.way, row.grows) == ("eager", "capacity")
    assert row.ratio is not None
    assert row.ratio.low > 0
    assert row.case.dense.model == "d=32,L=2,H=32"


def test_bars_of_absent_devices_are_not_measured(result: BenchResult) -> None:
    assert {bar.device for bar in result.bars} == {"cpu", "cuda"}
    assert all(bar.measured is None and bar.reached is None for bar in result.bars)


def test_each_task_reports_a_line_and_the_result_so_far(
    result: BenchResult, reports: list[tuple[BenchResult, str]]
) -> None:
    assert [len(found.not_reached) for found, _ in reports] == [3, 2, 1, 0]
    assert [len(found.steps) for found, _ in reports] == [4, 9, 9, 9]
    assert reports[-1][0] == result
    first, *_, last = (line for _, line in reports)
    assert first.startswith("1/4 d=32,H=32, 16 tokens, R=2, fp32: eager ")
    assert "plain " in first
    assert last.startswith("4/4 d=32,H=32, 16 tokens, R=2, fp32: coordinate check: fused ")


def test_json_holds_every_part(result: BenchResult) -> None:
    read = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert set(read) == {
        *("schema", "device", "device_name", "torch", "threads", "command", "problems", "not_reached"),
        *("ceilings", "steps", "latency", "coordinates", "growth", "bars"),
    }
    assert set(read["steps"][0]) == {
        *("case", "way", "seconds", "times", "share_of_matmul", "share_of_bandwidth", "note")
    }
    assert read["ceilings"]["flops_per_second"]["fp32"] > 0


@pytest.mark.parametrize("only", [(), ("headline",)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_plans_hold_the_shapes_of_the_bars(device: str, only: tuple[str, ...]) -> None:
    precisions = PRECISIONS if device == "cuda" else ("fp32",)
    plan = make_plan(device, precisions, only=only)
    bars = [bar for bar in BARS if bar.device == device and (bar.over or not only or bar.case.precision != "fp32")]
    assert {bar.case for bar in bars if bar.over} <= set(plan.cases("steps"))
    assert {bar.case for bar in bars if not bar.over} <= set(plan.cases("latency"))
    assert bool(only) or {case.runs for case in plan.cases("steps")} >= {1, 4, 8, 16, 32}


def test_the_headline_on_cuda_is_measured_first_and_compiled_last() -> None:
    headline = make_plan("cuda", PRECISIONS, only=("headline",)).tasks
    assert [task.ways for task in headline[:6]] == [("captured", "alone", "plain batched")] * 6
    assert [(task.kind, task.cases[0].precision) for task in headline[6:8]] == [
        ("latency", "tf32"),
        ("latency", "bf16"),
    ]
    assert [task.ways for task in headline[8:]] == [("captured", "compiled")] * 6
    tokens = [(task.cases[0].tokens, task.cases[0].precision) for task in headline]
    assert tokens[:6] == [(n, p) for n in (4096, 512) for p in PRECISIONS]
    assert sorted(tokens[8:]) == sorted(tokens[:6])
    whole = make_plan("cuda", PRECISIONS).tasks
    assert [task.cases for task in whole[: len(headline)]] == [task.cases for task in headline]
    assert len(set(whole)) == len(whole)
    assert whole[0].ways == UNCOMPILED


def test_quick_writes_json_table_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "bench.json"
    assert main(["bench", "--device", "cpu", "--quick", "--json", str(out)]) == 0
    printed = capsys.readouterr()
    assert [line.partition(" ")[0] for line in printed.err.splitlines()] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert "CUDA: not measured" in printed.out
    table = out.with_suffix(".md").read_text()
    assert table.replace("![Step times, mixtures against dense, growth](bench.png)\n\n", "") == printed.out
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    read = json.loads(out.read_text())
    assert {row["way"] for row in read["steps"]} == {"eager", "alone", "plain", "plain batched", "vmap"}


def test_a_mismatch_is_a_note_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(torch_ways, "schedule", lambda train: lambda step: 2.0)
    out = tmp_path / "bench.json"
    assert main(["bench", "--device", "cpu", "--quick", "--only", "sweep", "--json", str(out)]) == 1
    printed = capsys.readouterr()
    assert "**Problems:**" in printed.out
    assert printed.err.splitlines()[-1].startswith("mue_check bench: d=32,H=32, 256 tokens, R=8, fp32: vmap does not")
    rows = [row for row in json.loads(out.read_text())["steps"] if row["case"]["runs"] == 8]
    assert {row["way"] for row in rows if "does not train like the fused runs" in row["note"]} == {"plain", "vmap"}
    assert {row["way"] for row in rows if row["seconds"]} == {"eager", "alone"}


def test_a_case_that_fails_does_not_cost_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Exception):
        pass

    def broken(*given: object) -> None:
        raise Broken("no kernel image")

    monkeypatch.setattr(ways, "Vmapped", broken)  # the way
    monkeypatch.setattr("mue_check.bench.run.measure_coordinates", broken)  # the whole task
    result = run_bench(PLAN)
    assert {row.way: row.note for row in result.steps if row.note} == {"vmap": "Broken: no kernel image"}
    assert [row.way for row in result.steps if row.seconds] == [way for way in CPU_WAYS if way != "vmap"]
    assert result.latency[0].ratio is not None
    assert len(result.problems) == 3
    assert result.coordinates == ()


def test_no_case_begins_after_the_deadline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = time.monotonic()
    result = run_bench(PLAN, until=now)
    assert len(result.not_reached) == len(TASKS)
    assert run_bench(PLAN, until=now + 3600).not_reached == ()
    out = tmp_path / "bench.json"
    assert main(["bench", "--device", "cpu", "--quick", "--deadline", "0.001", "--json", str(out)]) == 0
    assert "Not measured, out of time" in capsys.readouterr().out
    assert len(json.loads(out.read_text())["not_reached"]) == 5


def test_a_run_that_is_killed_leaves_what_it_has_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mue_check.bench.run.measure_coordinates", stop)
    out = tmp_path / "bench.json"
    assert main(["bench", "--device", "cpu", "--quick", "--json", str(out)]) == 130
    assert "interrupted" in capsys.readouterr().err
    read = json.loads(out.read_text())
    assert len(read["steps"]) == 13
    assert len(read["latency"]) == 1
    assert read["not_reached"] == ["d=32,H=32, 256 tokens, R=4, fp32: coordinate check"]
    assert "coordinate check" in out.with_suffix(".md").read_text()


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
    assert "precision tf32 needs a GPU" in usage_error(capsys, "--device", "cpu", "--precision", "tf32")
    assert "unknown part 'speed'" in usage_error(capsys, "--device", "cpu", "--only", "headline,speed")
    assert "must be above 0" in usage_error(capsys, "--device", "cpu", "--deadline", "0")
    assert "must be above 0" in usage_error(capsys, "--device", "cpu", "--deadline", str(math.nan))
    assert "ends in .json" in usage_error(capsys, "--device", "cpu", "--json", str(tmp_path))
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "cannot write there" in usage_error(capsys, "--device", "cpu", "--json", str(blocked / "out.json"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what is absent")
def test_an_absent_device_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no CUDA device" in usage_error(capsys, "--device", "cuda")
