"""How a run of the suites ends: exit code 0 needs answers, all of them, and something that was judged."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mue_check.cli import main
from mue_check.measure import MEASUREMENTS
from mue_check.records import Cell, Columns

ROOT = Path(__file__).parents[2]
SUITE = """
import os

import pytest

from mue_check.questions.controls import ask_null_control
from mue_check.questions.drift import ask_drift

pytestmark = pytest.mark.axis("width", ladder="width", targets=1)


def test_drift(study, target_case, expect):
    expect(ask_drift(study, target_case.ladder, target_case.target))


def test_finding(study, target_case, expect):
    expect(ask_drift(study, target_case.ladder, target_case.target, finding=True))


def test_control(study, target_case, expect):
    expect(ask_null_control(study, target_case.ladder))


def test_forgets_to_expect(study, target_case):
    ask_drift(study, target_case.ladder, target_case.target)


def test_skips():
    pytest.skip("not today")


def test_interrupted():
    if not os.environ.get("CALM"):
        raise KeyboardInterrupt


def test_fails():
    assert False


def test_leaves():
    pytest.exit("enough", returncode=0)


@pytest.fixture
def leaving():
    pytest.exit("enough", returncode=0)


def test_leaves_early(leaving):
    pass
"""
Curve = Callable[[float, int], float]


def bowl(x: float, width: int) -> float:
    return 2 + 0.03 * (x + 6.5) ** 2


def drifts(x: float, width: int) -> float:
    return bowl(x + math.log2(width / 32), width)


def falls(x: float, width: int) -> float:
    return 2 - 0.01 * x


def diverges(x: float, width: int) -> float:
    return math.nan


def skips(x: float, width: int) -> float:
    pytest.skip("in the middle of a forward pass")


def leaves(x: float, width: int) -> float:
    pytest.exit("in the middle of a forward pass", returncode=0)


@pytest.fixture
def run(tmp_path: Path, run_pytest_here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the tests of SUITE with that name, with losses from a curve."""
    (tmp_path / "conftest.py").write_text((ROOT / "suites" / "conftest.py").read_text())
    (tmp_path / "test_suite.py").write_text(SUITE)

    def suite(curve: Curve, names: str, *options: str) -> Any:
        def measure(cell: Cell, corpus: object) -> Columns:
            runs = [(seed, value) for seed in cell.seeds for value in cell.values]
            losses = [curve(math.log2(value), cell.model.width) + 0.001 * seed for seed, value in runs]
            return {
                "seed": [seed for seed, _ in runs],
                "value": [value for _, value in runs],
                "initial": [1e6 for _ in runs],
                "loss": losses,
            }

        monkeypatch.setitem(MEASUREMENTS, "loss_grid", replace(MEASUREMENTS["loss_grid"], measure=measure))
        plain = ("--import-mode=importlib", "--strict-markers")
        tests = [tmp_path / f"test_suite.py::test_{name}" for name in names.split()]
        return run_pytest_here(*tests, "--study", tmp_path / "study", "--corpus", "markov", *plain, *options)

    return suite


def test_answers_as_expected_are_exit_0(run: Callable[..., Any], tmp_path: Path) -> None:
    result = run(bowl, "drift control skips")
    assert result.code == 0, result.out
    assert "this run: PASS, 2 questions\n" in result.out
    assert "\nwhole study: " not in result.out  # it has no other question
    assert main(["report", str(tmp_path / "study"), "--quiet"]) == 0


@pytest.mark.parametrize(
    ("curve", "names", "options", "code", "says"),
    [
        (bowl, "skips", [], 5, "nothing was judged: 1 skipped test"),
        (bowl, "finding skips", [], 5, "nothing was judged: 1 finding of which no verdict is expected, 1 skipped test"),
        (falls, "drift", ["--allow-inconclusive"], 5, "nothing was judged: 1 expected failure"),
        (falls, "control", ["--allow-inconclusive"], 1, "INCONCLUSIVE where PASS was expected: control-null-"),
        (diverges, "drift", ["--allow-inconclusive"], 1, "FAIL where PASS was expected: width-d64-"),
        (drifts, "forgets_to_expect", [], 1, "the answers of this run are not all as expected"),
        (
            skips,
            "drift",
            [],
            1,
            "-complete_mue: while it was measured, user code raised Skipped: in the middle",
        ),
        (leaves, "drift", [], 1, "while it was measured, user code raised Exit: in the middle of a forward pass"),
        (bowl, "drift leaves", [], 1, "pytest.exit was called in a test: enough"),
        (bowl, "drift leaves_early", [], 1, "did not end: exit code 1"),
    ],
)
def test_no_answer_is_never_exit_0(
    run: Callable[..., Any], curve: Curve, names: str, options: list[str], code: int, says: str
) -> None:
    result = run(curve, names, *options)
    assert result.code == code, result.out
    assert says in result.out


def test_a_question_that_raised_shows_until_it_is_answered(run: Callable[..., Any], tmp_path: Path) -> None:
    study, name = tmp_path / "study", "width-d64-markov-complete_mue"
    assert run(skips, "drift").code == 1
    result = run(bowl, "control")
    assert result.code == 0, result.out
    assert "this run: PASS, 1 question\n" in result.out
    assert "whole study: INCONCLUSIVE, 2 questions, 1 without an answer\n" in result.out
    assert f"  no answer: {name}: " in result.out
    assert main(["report", str(study), "--quiet"]) == 3
    assert run(bowl, "drift").code == 0
    assert main(["report", str(study), "--quiet"]) == 0


def test_a_run_says_what_the_whole_study_says_where_they_differ(run: Callable[..., Any], tmp_path: Path) -> None:
    wrong = run(drifts, "drift", "--rule", "standard")
    assert wrong.code == 1
    right = run(bowl, "control")
    assert right.code == 0
    assert "this run: PASS, 1 question\n" in right.out
    assert "whole study: FAIL, 2 questions\n" in right.out
    assert "width-d64-" not in right.out.partition("= mue_check =")[2]  # the table is of this run
    page = (tmp_path / "study" / "report.md").read_text()
    assert page.startswith("# study: FAIL\n")
    assert " asked 1 of them" in page


ROUTER = """
import os
from pathlib import Path

import torch


class EndsItsProcess(torch.nn.Linear):
    def __init__(self, d_model, n_experts, top_k):
        super().__init__(d_model, n_experts)
        self.top_k = top_k

    def forward(self, x):
        if list(Path(__file__).parent.glob("study/asked/*")):  # while it is measured, not while it is tried
            os._exit(0)
        weights, indices = super().forward(x).sigmoid().topk(self.top_k, dim=-1)
        return weights / weights.sum(-1, keepdim=True), indices
"""


def test_a_router_that_ends_its_process_is_not_exit_0(tmp_path: Path, run_pytest_here: Callable[..., Any]) -> None:
    (tmp_path / "mine.py").write_text(ROUTER)
    router = ("--router", f"{tmp_path / 'mine.py'}:EndsItsProcess", "--study", tmp_path / "study")
    result = run_pytest_here("suites/test_capacity.py", "-k", "test_scales", "--max-worker-restart=0", *router)
    assert result.code == 1, result.out
    assert "without an answer" in result.out
    assert main(["report", str(tmp_path / "study"), "--quiet"]) == 3


def test_a_run_that_was_stopped_is_unfinished_until_the_same_ends(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "study"
    assert run(bowl, "drift interrupted control").code == 2
    assert main(["report", str(study), "--quiet"]) == 3
    result = run(bowl, "drift control")  # another selection: what else the first would have asked is not known
    assert result.code == 0, result.out
    assert "whole study: INCONCLUSIVE" in result.out
    assert "did not finish, so questions may be missing" in (study / "report.md").read_text()
    monkeypatch.setenv("CALM", "1")
    assert run(bowl, "drift interrupted control").code == 0
    assert main(["report", str(study), "--quiet"]) == 0


def test_stopping_at_the_first_failure_leaves_a_run_unfinished(run: Callable[..., Any], tmp_path: Path) -> None:
    assert run(bowl, "drift fails control", "-x").code == 1
    assert main(["report", str(tmp_path / "study"), "--quiet"]) == 3
    assert run(bowl, "drift fails control").code == 1


def test_a_study_that_cannot_be_written_ends_the_run(run: Callable[..., Any], tmp_path: Path) -> None:
    """As on a full disk."""
    assert run(bowl, "drift").code == 0
    runs = tmp_path / "study" / "runs"
    runs.rmdir()
    runs.touch()
    result = run(bowl, "drift control")
    assert result.code == 1, result.out
    assert "Exit: cannot write" in result.out
    assert "INTERNALERROR" not in result.out


def test_a_run_that_calls_no_test_is_not_exit_0(run: Callable[..., Any]) -> None:
    result = run(bowl, "drift", "--setup-only")
    assert result.code == 5
    assert "nothing was judged: no test was called" in result.out
