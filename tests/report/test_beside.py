"""Another rule beside the one under test: it is shown everywhere and counts nowhere."""

from dataclasses import replace
from pathlib import Path

import pytest

from mue_check.catalog import summarize, write_report
from mue_check.judge.verdict import Verdict
from mue_check.overview.compare import compare_studies
from mue_check.overview.compare_files import compare_lines
from mue_check.questions.drift import main_drifts
from mue_check.questions.drift_report import drift_table
from mue_check.questions.scales import ScalesFinding, law_fold, open_law_table
from tests.report.conftest import Made, Shown


@pytest.fixture
def study(tmp_path: Path) -> Path:
    made, beside = Made(tmp_path / "study"), Made(tmp_path / "study", rule="standard")
    made.store.prepare()
    made.ask(made.side(32), made.side(64, 0.1))
    made.ask(made.side(32), made.side(64, 0.2), axis="depth")
    beside.ask(beside.side(32), beside.side(64, -2.0), expected="")
    names = ("block0.ffn_branch",)
    flat = [made.coordinates(width, names=names, label=f"d{width}") for width in (32, 64)]
    steep = [flat[0], made.coordinates(64, 4.0, names=names, label="wrong")]
    made.ask(*flat, kind="coordinates", axis="granularity")
    beside.ask(*steep, kind="coordinates", axis="granularity", expected="")
    return tmp_path / "study"


def test_a_finding_that_fails_leaves_the_study_as_expected(study: Path) -> None:
    summary = summarize(study)
    assert summary.as_expected
    assert len(summary.verdicts["drift"]) == 2
    assert len(summary.verdicts["coordinates"]) == 2
    verdicts = {(d.comparison.rule, d.comparison.ladder): d.drift.verdict for d in main_drifts(summary)}
    assert verdicts["standard", "width"] is Verdict.FAIL


def test_it_stands_in_the_tables_and_not_among_what_is_wrong(study: Path) -> None:
    summary = summarize(study)
    table = drift_table(summary)
    assert "expected" not in table.header
    rows = [row.cells for row in table.rows]
    assert [row[table.header.index("rule")] for row in rows].count("standard") == 1
    laws = summary.of(ScalesFinding)
    assert not open_law_table(laws).rows
    fold = law_fold("granularity", laws)
    assert not fold.is_open
    assert {row.verdict for row in fold.tables[0].rows} == {"PASS", "FAIL"}


def test_rules_with_the_same_cells_are_shown_once(study: Path) -> None:
    same, other = Made(study, rule="mup"), Made(study, rule="same_target")
    for made in (same, other):
        made.ask(made.side(32), made.side(64, 0.1), expected="")
    # the same target, held against another reference: another question
    other.ask(other.side(32, salt="other"), other.side(64, 0.2), axis="depth", expected="")
    same.ask(*(same.coordinates(w, names=("block0.ffn_branch",), label=f"d{w}") for w in (32, 64)),
             kind="coordinates", axis="granularity", expected="")  # fmt: skip
    summary = summarize(study)
    table = drift_table(summary)
    rules = [row.cells[table.header.index("rule")] for row in table.rows]
    assert rules == ["complete_mue, mup, same_target", "standard", "complete_mue", "same_target"]
    figures = sorted(name for name in Shown(study).figures if name.startswith("co") and "-granularity-" in name)
    assert [name.split("-")[3] for name in figures] == ["complete_mue", "standard"]
    header, width, *_ = compare_lines(compare_studies([study], summarize))
    assert width[header.index("mup") :].startswith("= complete_mue")


def test_laws_are_compared_rule_by_rule(study: Path) -> None:
    lines = compare_lines(compare_studies([study], summarize))
    at = next(i for i, line in enumerate(lines) if line.startswith("axis") and " laws " in line)
    header, row = lines[at], lines[at + 1]
    assert row.startswith("granularity")
    assert row[header.index("complete_mue") :].split()[0] == "0"
    assert row[header.index("standard") :].strip() == "2: branch scale at init"


def test_a_residual_may_point_down(tmp_path: Path) -> None:
    made = Made(tmp_path / "study")
    made = replace(made, knob="weight_decay")
    made.ask(made.side(32), made.side(64, -0.8), residual=-1.0, expected="RESIDUAL")
    summary = summarize(tmp_path / "study")
    assert summary.as_expected
    (row,) = drift_table(summary).rows
    assert row.verdict == "RESIDUAL"
    assert "0.5 (-1)" in row.cells
    write_report(tmp_path / "study", summary)
