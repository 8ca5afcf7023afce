"""The committed laboratory, judged again by today's code: what docs, README and `mue_check budget` take from it."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from mue_check.judge.verdict import Verdict
from mue_check.report import Summary, summarize
from mue_check.sigma0.calibration import read_calibration

ROOT = Path(__file__).parents[2]
LAB = ROOT / "reports" / "sigma0"


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    folder = tmp_path_factory.mktemp("lab") / "sigma0"
    with tarfile.open(LAB / "records.tar.gz") as packed:
        packed.extractall(folder, filter="data")
    return summarize(folder)


def test_the_budget_uses_what_the_records_say(summary: Summary) -> None:
    assert summary.calibration is not None
    packaged = read_calibration(None)
    assert packaged == read_calibration(LAB / "sigma0_calibration.json")
    again = summary.calibration
    assert again.kappa.kappa.mean == pytest.approx(packaged.kappa.kappa.mean, rel=1e-3)
    for routing, gamma in packaged.gamma.items():
        assert again.gamma[routing].mean == pytest.approx(gamma.mean, rel=1e-3)
    assert again.ranges == packaged.ranges


def test_the_control_is_one_half_and_narrow(summary: Summary) -> None:
    (control,) = (found for found in summary.gammas if found.comparison.is_control)
    gamma = control.gammas.pooled.gamma
    assert control.gammas.verdict is Verdict.PASS
    assert gamma.low <= 0.5 <= gamma.high
    assert gamma.half_width <= 0.08


def test_the_forecasts_hold_on_loads_held_out(summary: Summary) -> None:
    foretold = [found.forecast for found in summary.forecasts if found.forecast is not None]
    assert len(foretold) == 10
    assert sum(each.verdict is Verdict.PASS for each in foretold) >= 9
    assert all(2 * each.forecast.half_width <= 0.6 for each in foretold)


def test_the_readme_shows_what_the_command_prints() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command, _, shown = readme.partition("$ mue_check budget ")[2].partition("```")[0].partition("\n")
    asked = subprocess.run(
        [sys.executable, "-m", "mue_check", "budget", *command.split()], capture_output=True, text=True, check=True
    )
    assert asked.stdout == shown


def test_the_calibration_is_plain_json() -> None:
    assert json.loads((LAB / "sigma0_calibration.json").read_text(encoding="utf-8"))["schema"] == 1
