"""Predicted against measured drifts: the headline of a report, and what it says of rules that a ladder cannot tell
apart."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mue_check.catalog import summarize, write_report
from mue_check.judge.verdict import Verdict
from mue_check.overview.report import verdict_lines
from mue_check.questions.drift_report import blind_text, drift_table
from mue_check.questions.sensitivity import (
    SensitivityKind,
    agreement_table,
    ladder_lines,
    predicted_drifts,
    sensitivities,
    sensitivity_table,
)
from mue_check.questions.summary import Summary
from mue_check.study.comparison import Side
from tests.report.conftest import Made


def mixture(side: Side) -> Side:
    """The side under the name of a mixture; the store does not read names."""
    return replace(side, model=side.model.replace("H=", "h="))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Width: `standard` is caught by a drift. Depth: blind to `mup`, whose laws fail. Batch: an approximate law."""
    root = tmp_path / "study"
    right, standard, mup = (Made(root, rule=rule) for rule in ("complete_mue", "standard", "mup"))
    reference = right.side(32)
    right.ask(reference, right.side(64, 0.05), predicted=0.0)
    right.ask(reference, right.side(128, 0.1), predicted=0.0)
    standard.ask(reference, standard.side(64, -1.05), predicted=-1.0, expected="")
    standard.ask(reference, standard.side(128, -1.9), predicted=-2.0, expected="")
    mup.ask(reference, mup.side(128, 0.1), predicted=0.0, expected="")
    right.ask(reference, right.side(64, 0.02), axis="depth", predicted=0.0)
    mup.ask(reference, mup.side(64, 0.08), axis="depth", predicted=0.04, expected="")
    names = ("block0.ffn_branch",)
    flat, steep = (
        [right.coordinates(w, s, names=names, label=f"{s}{w}") for w, s in ((32, 1), (64, scale))] for scale in (1, 4)
    )
    right.ask(*flat, kind="coordinates", axis="depth", ladder="granularity")
    mup.ask(*steep, kind="coordinates", axis="depth", ladder="granularity", expected="")
    right.ask(reference, right.side(64, 0.9), axis="batch", residual=1.0, predicted=0.0, expected="RESIDUAL")
    group = replace(standard, knob="lr:feed_forward")
    group.ask(group.side(32), group.side(128, 1.3), axis="depth", ladder="depth_by_group", predicted=1.33, expected="")
    return root


@pytest.fixture
def summary(study: Path) -> Summary:
    return summarize(study)


def test_each_rule_on_each_ladder_has_a_row(summary: Summary) -> None:
    table = sensitivity_table(sensitivities(summary))
    rows = {(row.cells[0], row.cells[1]): dict(zip(table.header, row.cells, strict=True)) for row in table.rows}
    assert list(rows) == [
        ("width", "complete_mue"),
        ("width", "mup"),
        ("width", "standard"),
        ("depth", "complete_mue"),
        ("depth", "mup"),
        ("depth", "standard"),
        ("batch", "complete_mue"),
    ]
    caught = rows["width", "standard"]
    assert (caught["drift: predicted"], caught["caught by"]) == ("-2.00", "drift")
    assert caught["measured"].startswith("d128: -1.90 [")
    assert rows["depth", "mup"]["caught by"] == "blind"
    assert rows["depth", "complete_mue"]["caught by"] == "nothing"
    group = rows["depth", "standard"]
    assert (group["measured"], group["group drift: predicted"], group["caught by"]) == ("-", "+1.33", "group drift")
    assert group["measured (group)"].startswith("feed-forward lr, d128: +1.30 [")


def test_lines_name_the_ladders_that_tell_and_those_that_do_not(summary: Summary) -> None:
    rows = sensitivities(summary)
    assert list(ladder_lines(rows)) == [
        "a drift tells a wrong rule from the right one on 2 of 2 ladders: width (standard); depth (standard)"
    ]
    alone = [row for row in rows if row.rule != "standard"]
    told, others = ladder_lines(alone)
    assert told.endswith("on 0 of 2 ladders: none")
    assert others == "it does not on: width (largest predicted drift: +0.00); depth (largest predicted drift: +0.04)"


def test_a_right_rule_that_fails_tells_nothing(tmp_path: Path) -> None:
    right, standard = Made(tmp_path / "s"), Made(tmp_path / "s", rule="standard")
    right.ask(right.side(32), right.side(64, 1.5), predicted=0.0)
    standard.ask(right.side(32), standard.side(64, -1.5), predicted=-1.0, expected="")
    first, second = ladder_lines(sensitivities(summarize(tmp_path / "s")))
    assert first.endswith("on 0 of 1 ladders: none")
    assert second == "it does not on: width (largest predicted drift: -1.00)"


def test_the_line_is_over_predictions_that_no_approximate_law_blurs(summary: Summary) -> None:
    found = predicted_drifts(summary)
    # one of each: rules that coincide at d128 are one point, and the batch is left out
    assert sorted(d.comparison.predicted for d in found if d.comparison.predicted) == [-2.0, -1.0, 0.04, 1.33]
    assert len(found) == 7
    line, of_lr = agreement_table(found).rows
    assert line.cells[:3] == ("all knobs", "7", "2")
    assert of_lr.cells[:3] == ("learning rate", "6", "2")
    assert 0.9 < float(line.cells[3].split(" ")[0]) < 1.1


def test_the_offset_is_that_of_the_right_rules_experts(summary: Summary) -> None:
    found = predicted_drifts(summary)
    dense, *others = found
    sides = dense.comparison.sides
    moved = replace(dense, comparison=replace(dense.comparison, sides=(sides[0], mixture(sides[1]))))
    rows = agreement_table([moved, *others, moved]).rows
    assert rows[-1].cells[:5] == ("right rule, dense to experts: learning rate", "2", "1", "-", rows[-1].cells[4])
    assert rows[-1].cells[4].startswith("+0.05 [")


def test_what_a_drift_cannot_show_is_said_beside_it(summary: Summary) -> None:
    table = drift_table(summary)
    at = table.header.index("predicted")
    notes = {row.cells[table.header.index("rule")]: row.note for row in table.rows if row.cells[at] == "+0.04"}
    assert notes == {"mup": "blind: the predicted drift of +0.04 octave is too small to be detected"}
    assert sum("blind" in row.note for row in table.rows) == 1  # not of the right rule, nor of rules that coincide
    assert "predicted" in verdict_lines(summary)[0]
    missed = next(d for d in predicted_drifts(summary) if d.comparison.predicted == 0.04)
    assert blind_text(replace(missed, comparison=replace(missed.comparison, predicted=0.0))).endswith("no drift")
    assert blind_text(replace(missed, verdict=Verdict.FAIL)) == ""


def test_the_headline_is_the_first_section_and_a_small_picture(study: Path, summary: Summary) -> None:
    page = write_report(study, summary).read_text(encoding="utf-8")
    assert page.index("What tells rules apart") < page.index("Drift of the optimum")
    picture = (study / "figures" / "sensitivity.svg").read_text(encoding="utf-8")
    assert len(picture) < 100_000
    width = re.search(r'width="([\d.]+)pt"', picture)
    assert width is not None
    assert float(width[1]) * 96 / 72 <= 900


def test_without_another_rule_there_is_no_such_section(tmp_path: Path) -> None:
    made = Made(tmp_path / "s")
    made.ask(made.side(32), made.side(64, 0.1), predicted=0.0)
    assert not list(SensitivityKind().sections(summarize(tmp_path / "s")))
    assert "predicted" in drift_table(summarize(tmp_path / "s")).header
