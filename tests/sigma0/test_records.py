"""The committed laboratory, judged again: what docs, README and `mue_check budget` take from it."""

from pathlib import Path

import pytest

from bench.packed import unpack
from mue_check.catalog import summarize
from mue_check.cli import main
from mue_check.judge.verdict import Verdict
from mue_check.questions.summary import Summary
from mue_check.sigma0.calibrate import calibrate
from mue_check.sigma0.calibration import read_calibration
from mue_check.sigma0.forecast import ForecastFinding
from mue_check.sigma0.gamma import GammaFinding

ROOT = Path(__file__).parents[2]
LAB = ROOT / "reports" / "sigma0"


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    folder = tmp_path_factory.mktemp("lab") / "sigma0"
    unpack(LAB / "records.tar.xz", folder)
    return summarize(folder)


def test_the_budget_uses_what_the_records_say(summary: Summary) -> None:
    again, packaged = calibrate(summary.findings), read_calibration()
    assert again is not None
    assert packaged == read_calibration(LAB / "sigma0_calibration.json")
    assert again.kappa.kappa.mean == pytest.approx(packaged.kappa.kappa.mean, rel=1e-3)
    for routing, gamma in packaged.gamma.items():
        assert again.gamma[routing].mean == pytest.approx(gamma.mean, rel=1e-3)
    assert again.range == packaged.range


def test_the_control_is_one_half_and_narrow(summary: Summary) -> None:
    (control,) = (found for found in summary.of(GammaFinding) if found.comparison.is_control)
    assert control.verdict is Verdict.PASS
    assert control.pooled.gamma.low <= 0.5 <= control.pooled.gamma.high
    assert control.pooled.gamma.half_width <= 0.08


def test_the_forecasts_hold_on_held_out_loads(summary: Summary) -> None:
    found = summary.of(ForecastFinding)
    assert len(found) == 10
    assert sum(each.verdict is Verdict.PASS for each in found) >= 9
    assert all(each.predicted and 2 * each.predicted.half_width <= 0.6 for each in found)


def test_the_docs_show_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "sigma0.md").read_text(encoding="utf-8")
    command, _, shown = page.partition("$ mue_check budget ")[2].partition("```")[0].partition("\n")
    assert main(["budget", *command.split()]) == 0
    assert capsys.readouterr().out == shown
