"""The report and the terminal name the likely causes of a failure."""

from pathlib import Path

from mue_check.catalog import summarize
from mue_check.overview.report import verdict_lines
from tests.report.conftest import Made, Shown


def test_a_drift_that_fails_while_laws_hold_is_explained(tmp_path: Path) -> None:
    right, standard = Made(tmp_path), Made(tmp_path, rule="standard")
    right.ask(right.side(32), right.side(64, 1.5))
    flat = [right.coordinates(width, 1, label=f"1{width}") for width in (32, 64)]
    right.ask(*flat, kind="coordinates", axis="depth", ladder="granularity")
    standard.ask(standard.side(32), standard.side(64, 1.5), expected="")
    summary = summarize(tmp_path)
    lines = [line for line in verdict_lines(summary) if "what next" in line or "Decide" in line]
    assert lines[0].startswith("what next, width, complete_mue: drift FAIL. In order of likelihood:")
    assert lines[1].startswith("  1. hidden rate: ")
    assert len(lines) == 4  # nothing is said of the rule of which nothing is expected
    text = Shown(tmp_path).text
    assert "## What next" in text
    says = "the learning rate of hidden matrices, experts included, does not scale as prescribed"
    assert f"| width | standard | drift FAIL | {says} |" in text


def test_nothing_is_said_where_nothing_fails(tmp_path: Path) -> None:
    right = Made(tmp_path)
    right.ask(right.side(32), right.side(64, 0.05))
    summary = summarize(tmp_path)
    assert not any("what next" in line for line in verdict_lines(summary))
    assert "next" not in Shown(tmp_path).anchors
