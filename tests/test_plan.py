"""`mue_check plan`: the tests that pytest collects, their cost once, and what a budget leaves of them."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mue_check.cli import main
from mue_check.cost.calibration import Calibration, save_calibration
from mue_check.cost.dry_run import dry_run
from mue_check.cost.format import duration
from mue_check.cost.plan import make_plan, price
from mue_check.cost.trim import parse_budget
from mue_check.cost.work import PRICED, batch_work
from mue_check.errors import SpecError, StoreError

ROOT = Path(__file__).parents[1]
PAPER = Calibration(
    machine={"kind": "cpu", "device": "a paper machine", "torch": "0", "code": "0"},
    prices=dict.fromkeys(PRICED, 0.0) | {"calls": 1e-3, "flop": 1e-11},
    error=1.0,
    stacks=0,
)
"""Prices of no device: times are then what arithmetic makes them."""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`mue_check plan` on an empty study and the paper machine: its exit code."""
    monkeypatch.chdir(ROOT)
    save_calibration(PAPER, tmp_path / "paper.json")

    def run(*arguments: str) -> int:
        given = ("--calibration", str(tmp_path / "paper.json"), "--study", str(tmp_path / "study"))
        code = main(["plan", *given, *arguments])
        assert not (tmp_path / "study").exists()
        return code

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ["--axes=width,batch,speed,sigma0"],
        ["--tier=cpu", "--corpus=markov", "--beside=standard", "--axes=depth,capacity", "--seeds=4", "--rungs=2"],
        ["--axes=routing_hybrids,heldout", "--router=builtin:deepseek_v3", "--heldout=d=64,16e4a1s,h=16"],
    ],
)
def test_the_plan_is_of_the_tests_that_pytest_collects(
    arguments: list[str], tmp_path: Path, run_pytest_here: Callable[..., Any]
) -> None:
    arguments = [*arguments, f"--study={tmp_path / 'study'}"]
    listed = run_pytest_here("suites", *arguments, "--collect-only", "-q")
    tests = [line for line in listed.out.splitlines() if "::" in line]
    assert tests
    assert [test.test for test in dry_run(arguments).tests] == tests


ENDINGS = """
import pytest

from mue_check.errors import MueCheckError, StoreError
from mue_check.questions.drift import ask_drift

pytestmark = pytest.mark.axis("depth")
ENDS = {"fails": pytest.fail.Exception, "skips": pytest.skip.Exception, "errs": MueCheckError, "breaks": StoreError}


@pytest.mark.parametrize("end", ENDS)
def test_it(study, target_case, expect, end):
    expect(ask_drift(study, target_case.ladder, target_case.target))
    raise ENDS[end]("so be it")
"""


def test_a_test_costs_its_cells_however_it_ends(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "suites" / "conftest.py").read_text())
    (tmp_path / "test_depth.py").write_text(ENDINGS)
    options = ["--axes=depth", "--study", str(tmp_path / "study"), "-k"]
    for end in ("fails", "skips", "errs"):
        plan = price(dry_run([*options, end], tmp_path), [], PAPER, 1)
        assert plan.total.tests == 1
        assert plan.total.runs >= 40
        assert len(plan.run.tests[0].drifts) == 1
    with pytest.raises(StoreError, match="so be it"):
        dry_run([*options, "breaks"], tmp_path)


def test_every_cell_is_counted_once(tmp_path: Path) -> None:
    plan = make_plan(["--axes", "width", "--study", str(tmp_path / "study")], PAPER, 1)
    batches = [batch for test in plan.run.tests for batch in test.new.batches]
    keys = [cell.key for batch in batches for cell in batch]
    assert len(keys) == len(set(keys)) == plan.total.cells
    assert plan.total.tests == len(plan.run.tests)
    assert plan.total.flop == pytest.approx(sum(batch_work(batch).flop for batch in batches))
    assert plan.total.seconds == pytest.approx(sum(PAPER.seconds(batch_work(batch)) for batch in batches))
    assert plan.wall_seconds == pytest.approx(plan.total.seconds)


def test_more_workers_are_sooner_done_and_no_sooner_than_the_longest_test(tmp_path: Path) -> None:
    arguments = ["--axes", "width", "--study", str(tmp_path / "study")]
    run = dry_run(arguments)
    plans = [price(run, arguments, PAPER, workers) for workers in (1, 2, 100)]
    walls = [plan.wall_seconds for plan in plans]
    assert plans[0].by_test is not None
    assert walls[0] > walls[1] >= walls[2] == max(plans[0].by_test)
    assert walls[1] >= walls[0] / 2


def test_without_a_calibration_the_times_stay_open(tmp_path: Path) -> None:
    plan = make_plan(["--axes", "duration", "--study", str(tmp_path / "study")], None, 1)
    assert plan.total.flop > 0
    assert plan.total.seconds is plan.wall_seconds is None


def test_formats_say_the_same(plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--axes", "duration", "--workers", "2") == 0
    text = capsys.readouterr().out
    assert plan("--axes", "duration", "--workers", "2", "--format", "json") == 0
    values = json.loads(capsys.readouterr().out)
    assert plan("--axes", "duration", "--format", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["question"] for row in rows[:-1]] == [row["question"] for row in values["rows"]]
    assert [int(row["cells"]) for row in rows] == [*(row["cells"] for row in values["rows"]), values["total"]["cells"]]
    assert values["command"].startswith("mue_check suite --axes duration")
    assert values["command"].endswith(" -n 2")
    total = next(line for line in text.splitlines() if line.startswith("total"))
    assert total.split()[-1] == f"{values['total']['seconds']:.1f}"
    assert f"{values['total']['seconds']:.0f} core-seconds" in text
    assert "a paper machine" in text
    assert "budget" not in text


def test_a_budget_that_all_fits_in_trims_nothing(plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--axes", "depth", "--budget", "10h") == 0
    out = capsys.readouterr().out
    assert "all of it fits" in out
    assert "--seeds" not in out


def test_a_budget_trims_targets_and_seeds_until_it_fits(plan, capsys: pytest.CaptureFixture[str]) -> None:
    def asked(*arguments: str) -> dict:
        code = plan("--tier=cpu", "--axes=depth", "--corpus=markov", "--format=json", *arguments)
        return {"code": code, **json.loads(capsys.readouterr().out)}

    full = asked()
    floor = asked("--rungs=1", "--seeds=4")
    between = (full["wall_seconds"] + 3 * floor["wall_seconds"]) / 4
    left = asked("--budget", f"{between:.0f}s")
    assert left["code"] == 0
    assert left["wall_seconds"] <= round(between) < full["wall_seconds"]
    assert left["budget"]["met"]
    assert left["budget"]["untrimmed_wall_seconds"] == pytest.approx(full["wall_seconds"])
    assert " ".join(left["budget"]["options"]) in left["command"]
    again = asked(*left["budget"]["options"])
    assert again["rows"] == left["rows"]
    power = {row["ladder"]: row for row in left["budget"]["power"] if row["knob"] == "lr"}
    assert power["depth"]["targets"][0] == "L8"
    assert [*power["depth"]["targets"], *power["depth"]["left_out"]] == ["L8", "L16"]
    assert all(row["targets"] and row["decidable"] and row["detectable"] > 0.5 for row in power.values())

    short = asked("--budget", f"{0.9 * floor['wall_seconds']:.0f}s")
    assert (short["code"], short["budget"]["met"]) == (1, False)
    assert short["rows"] == floor["rows"]


def test_what_can_no_longer_be_decided_is_said(plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--axes", "duration", "--tolerance", "0.1", "--budget", "1s") == 1
    out = capsys.readouterr().out
    assert "NOT met: the minimum (4 seeds per drift" in out
    assert "undecidable: even a model without drift would be INCONCLUSIVE" in out


def test_controls_that_a_cut_ladder_loses_are_named(plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--tier=cpu", "--axes=width", "--corpus=markov", "--seeds=4", "--budget=1s") == 1
    assert "controls left out: control-width-d128-markov-standard" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--budget", "soon"], "--budget soon: write a time above 0"),
        (["--budget", "0m"], "--budget 0m: write a time above 0"),
        (["--budget", "m"], "--budget m: write a time above 0"),
        (["--workers", "0"], "--workers 0: must be at least 1"),
        (["--axes", "length"], "unknown axis 'length'"),
        (["--seeds", "3"], "--seeds 3: at least 4 are needed"),
        (["--rungs", "0"], "--rungs 0: must be a whole number"),
        (["--tier", "gpu", "--axes", "duration", "--corpus", "markov"], "is for cpu, and the tier needs cuda"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], says: str, plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert says in captured.err


def test_a_gpu_tier_without_a_gpu_is_planned_without_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = ["plan", "--tier=gpu", "--axes=duration", "--corpus=markov", f"--study={tmp_path / 'study'}"]
    assert main(arguments) == 0
    assert "time         unknown" in capsys.readouterr().out
    assert main([*arguments, "--budget=1h"]) == 2
    assert "give --calibration FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("10m", 600), ("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("2m30s", 150)]
)
def test_budgets(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "-5m", "5d", "m5", "30s1m", "1h 30m", "nanm"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(SpecError, match="write a time above 0"):
        parse_budget(text)


def test_durations() -> None:
    assert [duration(s) for s in (0.2, 89.1, 150, 7500)] == ["1 s", "90 s", "2m 30s", "2h 05m"]
