"""The report on sigma_0, of a study whose gammas, shifts and drifts are known."""

import json
import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from mue_check.catalog import summarize, write_report
from mue_check.cli import main
from mue_check.errors import CalibrationError
from mue_check.judge.verdict import Verdict
from mue_check.overview.report import verdict_lines
from mue_check.questions.drift import DriftFinding
from mue_check.questions.drift_report import drift_table as main_drift_table
from mue_check.questions.summary import Summary
from mue_check.report.table import Table
from mue_check.sigma0 import calibrate
from mue_check.sigma0.forecast import ForecastFinding, forecast_table, forecast_text
from mue_check.sigma0.gamma import GammaFinding
from mue_check.sigma0.gamma_report import gamma_table, noise_table
from mue_check.sigma0.ladders import SIGMA0, probed_load
from mue_check.sigma0.residual import best_measure, residual_groups
from mue_check.sigma0.shift import ShiftFinding
from mue_check.sigma0.shift_report import drift_table, kappa_table, probe_table, residual_fit_table
from mue_check.study.asked import record_question
from mue_check.study.comparison import load_comparisons, save_comparison
from mue_check.study.folder import Study
from tests.report.conftest import Made
from tests.sigma0 import world

FIGURES = {"sigma0-noise", "sigma0-gamma", "sigma0-residual", "sigma0-kappa", "sigma0-forecast"}


@pytest.fixture(scope="module")
def lab(asked: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with one drift along width."""
    root = tmp_path_factory.mktemp("reports") / "lab"
    shutil.copytree(asked.root, root)
    made = Made(root)
    made.ask(made.side(32), made.side(64, 0.1))
    return root


@pytest.fixture(scope="module")
def with_width(lab: Path) -> Summary:
    return summarize(lab)


@pytest.fixture(scope="module")
def study(lab: Path, with_width: Summary) -> Path:
    """The copy with its report."""
    write_report(lab, with_width)
    return lab


def columns(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.header, row.cells, strict=True)) for row in table.rows]


def test_laws_are_counted_and_findings_are_not(summary: Summary) -> None:
    counts = {kind: len(pairs) for kind, pairs in summary.verdicts.items()}
    assert counts == {"shift of sigma_0": 5, "forecast": 2, "control": 1}
    assert sorted(summary.verdicts["forecast"]) == [(Verdict.FAIL, "PASS"), (Verdict.PASS, "PASS")]
    assert summary.verdict is Verdict.FAIL


def test_the_main_table_has_no_sigma0(with_width: Summary) -> None:
    assert [row["axis"] for row in columns(main_drift_table(with_width))] == ["width"]
    assert len([d for d in with_width.of(DriftFinding) if d.comparison.axis == SIGMA0]) == 12


def test_tables_of_gamma_and_of_the_parts(summary: Summary) -> None:
    found = summary.of(GammaFinding)
    rows = columns(gamma_table(found))
    assert len(rows) == 6
    assert [row["verdict"] for row in rows].count("PASS") == 1
    row = columns(noise_table(found))[0]
    assert (row["attention"], row["embeddings"], row["unembedding"]) == ("1.00", "2.00", "0.00")
    assert float(row["simple noise scale, tokens"]) > 256


def test_the_shortfall_explains_the_residual(summary: Summary) -> None:
    learned, blind = residual_groups(summary.of(ShiftFinding))
    best = best_measure(learned.fits)
    assert best is not None
    assert best.measure == "shortfall (bits)"
    assert learned.quoted is not None
    assert learned.quoted.slope.mean == pytest.approx(world.LEARNED - 0.5, abs=0.02)
    # one load makes no line
    assert blind.quoted is None
    rows = columns(residual_fit_table([learned, blind]))
    assert [row["routing"] for row in rows] == ["learned"] * 4 + ["content-blind"] * 4


def test_tables_of_drift_kappa_forecast_and_probe(summary: Summary) -> None:
    uses = [row["in the budget's fit"] for row in columns(drift_table(summary))]
    assert [uses.count(use) for use in ("yes", "held out", "no: not a load")] == [4, 2, 4]
    lines = [row["line"] for row in columns(kappa_table(summary.findings))]
    assert [line for line in lines if ":" not in line] == ["loads, through 0 (the budget's)", "loads", "every ladder"]
    assert "loads: load content blind alone" in lines
    forecasts = summary.of(ForecastFinding)
    assert [row["inside"] for row in columns(forecast_table(forecasts))] == ["no", "yes"]
    assert forecast_text(forecasts).startswith("forecasts: 1 of 2 inside, median width 0.")
    (probe,) = columns(probe_table(summary.of(DriftFinding)))
    assert probe["load"] == "zipf-1"
    assert probe["strength 0.5 [95 %]"].startswith("+2.9")
    assert probe["1 against 0, by seed [95 %]"].startswith("+3.0")


def test_page_markdown_and_terminal_have_the_sections(study: Path, summary: Summary) -> None:
    page = unescape((study / "report.html").read_text())
    for anchor in ("gamma", "sigma0", "budget"):
        assert f'id="{anchor}"' in page
        assert f'href="#{anchor}"' in page
    assert "--calibration STUDY/sigma0_calibration.json" in page
    text = (study / "report.md").read_text()
    assert "## sigma" in text
    assert "Causal probe" in text
    names = {path.stem for path in (study / "figures").glob("*.svg")}
    assert names >= FIGURES
    assert "curves-load-markov-complete_mue" in names
    assert len(re.findall("^sigma_0: ", "\n".join(verdict_lines(summary)), re.MULTILINE)) >= 6


def test_the_calibration_makes_a_budget(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = study / "sigma0_calibration.json"
    assert json.loads(written.read_text())["made_by"] == "pytest x"
    load = ",".join(["4", *["1"] * 15])
    assert main(["budget", "--calibration", str(written), "--load", load, "--spec", "16e2a", "--batch", "256"]) == 0
    assert "LR optimum" in capsys.readouterr().out


def part_of(asked: Study, root: Path, *kinds: str) -> Path:
    """A study with the same records, and only the comparisons of these kinds."""
    shutil.copytree(asked.root, root, ignore=lambda _, names: {"asked", "comparisons"} & set(names))
    for comparison in load_comparisons(asked.root):
        if comparison.kind in kinds:
            record_question(root, replace(comparison, sides=()), "")
            save_comparison(root, comparison)
    return root


def test_a_forecast_without_a_calibration_is_open_and_says_so(
    asked: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise CalibrationError("none")

    monkeypatch.setattr(calibrate, "read_calibration", missing)
    root = part_of(asked, tmp_path / "study", "forecast")
    summary = summarize(root)
    assert summary.verdict is Verdict.INCONCLUSIVE
    page = write_report(root, summary).read_text()
    assert "not predicted" in page
    assert "no calibration" in page
    assert not (root / "sigma0_calibration.json").exists()
    assert verdict_lines(summary)[0].startswith("sigma_0: forecasts: none judged")


@pytest.mark.parametrize("change", [{"cells": ("0" * 20,)}, {"model": "nonsense"}])
def test_what_cannot_be_judged_is_one_line_and_exit_2(
    asked: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    root = part_of(asked, tmp_path / "study", "sigma0", "gamma")
    comparison = load_comparisons(root)[-1]
    *others, target = comparison.sides
    save_comparison(root, replace(comparison, sides=(*others, replace(target, **change))))
    assert main(["report", str(root)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot judge '{comparison.name}'" in line


def test_a_study_without_sigma0_says_nothing_of_it(tmp_path: Path) -> None:
    made = Made(tmp_path / "study")
    made.ask(made.side(32), made.side(64, 0.25))
    summary = summarize(made.root)
    page = write_report(made.root, summary).read_text()
    assert "sigma0" not in page
    assert "sigma" not in (made.root / "report.md").read_text()
    assert not (made.root / "sigma0_calibration.json").exists()
    assert not any("sigma" in line for line in verdict_lines(summary))


@pytest.mark.parametrize(
    ("label", "probe"),
    [("zipf-1-scaled-0_5", ("zipf-1", 0.5)), ("zipf-1_5-scaled-1", ("zipf-1_5", 1.0)), ("zipf-1", ("zipf-1", 0.0))],
)
def test_labels_of_the_probe(label: str, probe: tuple[str, float]) -> None:
    assert probed_load(label) == probe
