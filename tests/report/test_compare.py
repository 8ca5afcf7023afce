"""Rules side by side, through the command line."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from mue_check.catalog import summarize
from mue_check.cli import main
from mue_check.judge.verdict import Verdict
from mue_check.overview.compare import compare_studies
from mue_check.overview.compare_files import compare_lines
from tests.report.conftest import Made

DRIFTS = {
    ("one", "complete_mue"): {64: 0.1, 128: 0.2},
    ("one", "standard"): {64: -0.9, 128: -1.9},
    ("two", "complete_mue"): {64: 0.15, 128: 0.3},
    ("two", "mup"): {64: 1.0},
}


@pytest.fixture
def studies(tmp_path: Path) -> tuple[Path, Path]:
    """Two studies of two rules each, one of them in both, with a control that does not count."""
    for (name, rule), drifts in DRIFTS.items():
        made = Made(tmp_path / name, rule=rule)
        for width, drift in drifts.items():
            made.ask(made.side(32, salt=rule), made.side(width, drift, salt=rule))
        made.ask(made.side(32, salt=rule), made.side(64, -3.0), axis="control", expected="FAIL")
    return tmp_path / "one", tmp_path / "two"


def test_two_studies_of_two_rules(studies: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    one, two = studies
    assert main(["compare", str(one), str(two)]) == 0
    out = capsys.readouterr().out
    header, near, far, *_ = out.splitlines()
    # the rule that both studies hold is told apart by the study
    columns = ["one/complete_mue", "standard", "two/complete_mue", "mup"]
    assert [header.index(name) for name in columns] == sorted(header.index(name) for name in columns)
    cells = {name: (near[header.index(name) :], far[header.index(name) :]) for name in columns}
    assert cells["one/complete_mue"][0].startswith("+0.10 [+0.06, +0.14], 0.0002, PASS")
    assert cells["standard"][1].startswith("-1.90 [")
    assert cells["two/complete_mue"][1].startswith("+0.30 [")
    assert cells["mup"][1].strip() == "-"
    assert sorted(path.name for path in one.iterdir() if path.is_file()) == ["compare.csv", "compare.md", "compare.svg"]
    assert not list(two.glob("compare.*"))


def test_the_numbers_are_raw_and_controls_are_left_out(studies: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    assert main(["compare", *map(str, studies), "--out", str(out), "--quiet"]) == 0
    table = pd.read_csv(out / "compare.csv")
    found = {(r.study, r.rule, r.size): r.drift for r in table.itertuples()}
    wanted = {(study, rule, size): drift for (study, rule), d in DRIFTS.items() for size, drift in d.items()}
    assert found == pytest.approx(wanted)
    assert (table["high"] > table["drift"]).all()
    assert set(table["verdict"]) == {"PASS", "FAIL"}
    text = (out / "compare.md").read_text()
    assert "| width | d64 | markov |" in text
    assert "compare.svg" in text


def test_counts_and_means_are_over_the_rows_that_all_resolve(studies: tuple[Path, Path]) -> None:
    def counts(*roots: Path) -> dict[str, dict[str, str]]:
        table = compare_studies(roots, summarize).tables[-1]
        return {row.cells[0]: dict(zip(table.header, row.cells, strict=True)) for row in table.rows}

    both = counts(*studies)
    assert both["one/complete_mue"][Verdict.PASS] == "2"
    assert both["standard"]["FAIL"] == "2"
    assert both["mup"]["FAIL"] == "1"
    # mup has d64 alone
    assert {row["over rows"] for row in both.values()} == {"1"}
    assert both["standard"]["mean absolute drift"] == "0.90"
    assert both["standard"]["mean regret"] == f"{0.02 * (0.9**2 + 0.02**2):.4f}"
    assert counts(studies[0])["standard"]["mean absolute drift"] == "1.40"


def test_one_study_and_one_rule_in_two(studies: tuple[Path, Path]) -> None:
    assert compare_studies(studies[:1], summarize).columns == ("complete_mue", "standard")
    assert compare_studies([studies[0], studies[0]], summarize).columns == ("complete_mue", "standard")


def test_values_and_routers_make_rows_of_their_own(tmp_path: Path) -> None:
    made = Made(tmp_path / "s")
    made.ask(made.side(32), made.side(64, 0.1))
    swept = replace(made, knob="weight_decay")
    swept.ask(swept.side(32), swept.side(64, 0.2))
    made.ask(made.side(32), made.side(64, 0.2, diverges_from=-99.0), axis="depth")
    made = Made(tmp_path / "s", router="switch")
    made.ask(made.side(32), made.side(64, 0.3))
    sides = compare_studies([made.root], summarize)
    assert [(q.comparison.ladder, q.comparison.knob, q.comparison.router) for q in sides.drifts] == [
        ("width", "lr", "sigmoid_norm"),
        ("width", "lr", "switch"),
        ("width", "weight_decay", "sigmoid_norm"),
        ("depth", "lr", "sigmoid_norm"),
    ]
    lines = compare_lines(sides)
    assert "value" in lines[0]
    assert "unresolved, FAIL" in lines[4]  # every value diverged
    assert main(["compare", str(made.root), "--quiet"]) == 0


def test_a_bad_folder_is_one_line_and_exit_2(
    studies: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(studies[0]), str(tmp_path / "nowhere")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "holds no study" in captured.err
    assert len(captured.err.splitlines()) == 1
    made = Made(tmp_path / "laws")
    made.ask(*(made.coordinates(width) for width in (32, 64)), kind="coordinates", axis="heldout")
    assert main(["compare", str(made.root)]) == 2
    assert capsys.readouterr().err == "mue_check compare: study 'laws' has no drift to compare\n"
    assert not list(tmp_path.rglob("compare.*"))
