"""What a report says of approximate laws, other values, rules and routers, and of many laws at once."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mue_check.catalog import summarize, write_report
from mue_check.judge.laws import LAWS
from mue_check.judge.verdict import Verdict
from mue_check.overview.conclusion import count_lines
from mue_check.overview.report import report_of, verdict_lines
from mue_check.overview.sections import rung_cost_table
from mue_check.questions.display import Palette
from mue_check.questions.drift import DriftFinding
from mue_check.questions.drift_plots import plot_drifts, row_name
from mue_check.questions.drift_report import drift_table
from mue_check.questions.summary import Summary
from mue_check.report.palette import REFERENCE
from mue_check.report.section import Fold, Part, Picture, Section, Strip
from mue_check.study.comparison import Side
from tests.report.conftest import Made, Shown


def column(summary: Summary, name: str) -> list[str]:
    table = drift_table(summary)
    return [row.cells[table.header.index(name)] for row in table.rows]


def test_the_pictures_of_a_section_are_those_of_all_its_parts() -> None:
    one, two, three, four = ((Picture(name=name, alt="", draw=Figure, shows=""),) for name in "1234")
    strip = Strip(title="", anchor="", verdict=Verdict.PASS, pictures=two, others=Fold(title="", pictures=three))
    folds = (Fold(title="", pictures=four),)
    section = Section(title="", part=Part.ANSWERS, anchor="", pictures=one, strips=(strip,), folds=folds)
    assert section.all_pictures == one + two + three + four


def test_a_residual_is_shown_and_counts_as_expected(made: Made) -> None:
    reference = made.side(32)
    approximate = {"axis": "batch", "ladder": "batch_at_fixed_steps", "expected": "RESIDUAL", "residual": 1.0}
    made.ask(reference, made.side(64, 0.9), **approximate)
    made.ask(reference, made.side(128, 0.1), **approximate)
    summary = summarize(made.root)
    assert [d.drift.verdict for d in summary.of(DriftFinding)] == [Verdict.RESIDUAL, Verdict.PASS]
    assert summary.as_expected
    assert count_lines(summary)[1] == "drift: 1 PASS, 1 RESIDUAL"
    assert column(summary, "tolerance") == ["0.5 (+1)", "0.5 (+1)"]
    assert "expected" not in drift_table(summary).header
    page = write_report(made.root).read_text()
    # the row, the axis and its row, the list of questions, and how to read it
    assert page.count('class="badge residual"') == 5


def test_the_residual_is_a_band_over_its_own_target_alone(made: Made) -> None:
    made.ask(made.side(32), made.side(64, 0.9), expected="RESIDUAL", residual=0.5)
    made.ask(made.side(32), made.side(128, 0.9), expected="RESIDUAL", residual=1.0)
    summary = summarize(made.root)
    axes = plot_drifts(summary.of(DriftFinding), Palette.of_study(summary.comparisons)).axes[0]
    bands = [p for p in axes.patches if isinstance(p, Rectangle) and p.get_x() == 0.5]
    assert [(band.get_y() + band.get_height() / 2, band.get_width()) for band in bands] == [(0.0, 1.0), (1.0, 0.5)]


def test_a_residual_that_nobody_allowed_is_not_as_expected(made: Made) -> None:
    made.ask(made.side(32), made.side(64, 0.9), expected="PASS", residual=1.0)
    summary = summarize(made.root)
    assert summary.verdict is Verdict.FAIL
    assert column(summary, "expected") == ["PASS"]


def test_power_is_printed_and_a_dash_where_there_is_none(made: Made) -> None:
    reference = made.side(32)
    made.ask(reference, made.side(64, 0.25, spread=0.2))
    made.ask(reference, made.side(128, 0.25, diverges_from=-99.0))
    summary = summarize(made.root)
    detectable = summary.of(DriftFinding)[0].drift.detectable
    assert detectable > 0.5
    assert column(summary, "detectable drift") == [f"{detectable:.2f}", "-"]
    header, first, second, *_ = verdict_lines(summary)
    at = header.index("detectable")
    assert first[at:].startswith(f"{detectable:.2f} ")
    assert second[at:].startswith("- ")


def test_value_and_router_are_columns_only_where_they_differ(tmp_path: Path) -> None:
    made = Made(tmp_path / "study")
    made.ask(made.side(32), made.side(64, 0.25))
    assert not {"value", "router"} & set(drift_table(summarize(made.root)).header)
    swept = replace(made, knob="weight_decay")
    swept.ask(swept.side(32), swept.side(64, 0.1))
    made = Made(tmp_path / "study", router="deepseek_v3+selection_bias")
    made.ask(made.side(32), made.side(64, 0.2, salt="router"))
    summary = summarize(made.root)
    assert column(summary, "value") == ["learning rate", "learning rate", "weight decay"]
    assert column(summary, "router") == ["sigmoid_norm", "deepseek_v3+selection_bias", "sigmoid_norm"]
    assert max(map(len, verdict_lines(summary))) < 150
    shown = Shown(made.root)
    # unlike curves never share a picture, and drifts in one picture say what distinguishes them
    curves = {name for name in shown.figures if name.startswith("curves-")}
    assert curves > {"curves-width-markov-complete_mue", "curves-width-markov-complete_mue-weight_decay"}
    assert len(curves) == 3
    drifts = summary.of(DriftFinding)
    assert [row_name(d, drifts) for d in drifts] == [
        "d64, lr, sigmoid_norm",
        "d64, lr, deepseek_v3+selection_bias",
        "d64, wd, sigmoid_norm",
    ]
    assert "Loss against weight decay along width" in shown.text


def test_axes_keep_their_own_order_ladders_their_names_and_controls_come_last(made: Made) -> None:
    reference = made.side(32)
    for axis, ladder in (("bridges", "bridge_1"), ("capacity", "capacity"), ("width", "width"), ("depth", "depth")):
        made.ask(reference, made.side(128, 0.1), axis=axis, ladder=ladder)
        made.ask(reference, made.side(64, 0.1), axis=axis, ladder=ladder)
    made.ask(reference, made.side(64, -2.0), axis="control", ladder="width", expected="FAIL")
    drifts = summarize(made.root).of(DriftFinding)
    found = [(d.comparison.axis, d.side.label) for d in drifts]
    axes = ["width", "depth", "capacity", "bridges"]
    assert found == [*((axis, label) for axis in axes for label in ("d64", "d128")), ("control", "d64")]
    assert column(summarize(made.root), "axis")[-1] == "bridge 1"


def test_rules_stand_beneath_one_another_by_target(tmp_path: Path) -> None:
    for rule in ("standard", "complete_mue"):
        made = Made(tmp_path / "study", rule=rule)
        for width in (128, 64):
            made.ask(made.side(32), made.side(width, 0.1, salt=rule))
    summary = summarize(made.root)
    found = list(zip(column(summary, "target"), column(summary, "rule"), strict=True))
    assert found == [(label, rule) for label in ("d64", "d128") for rule in ("complete_mue", "standard")]
    assert {name for name in Shown(made.root).figures if name.startswith("drift")} == {"drift-width"}


def test_a_target_of_one_ladder_is_black_where_it_is_the_reference(made: Made) -> None:
    made.ask(made.side(32), made.side(64, 0.1), axis="bridges", ladder="bridge_1")
    made.ask(made.side(64, 0.1), made.side(128, 0.1), axis="bridges", ladder="bridge_2")
    summary = summarize(made.root)
    first, second = (d.comparison for d in summary.of(DriftFinding))
    palette = Palette.of_study(summary.comparisons)
    assert palette.of(second, "d64") == palette.of(first, "d32") == REFERENCE
    assert palette.of(first, "d64") != REFERENCE


def law_study(made: Any, **scales: float) -> None:
    """The laws of width at exact scales, but for the coordinates in ``scales``, which fall off by that factor."""
    names = sorted({law.coordinate for law in LAWS["width"]})
    sides: list[Side] = []
    for width in (32, 64, 128):
        rows = [(seed, step, name) for seed in range(4) for step in (0, 1, 5) for name in names]
        values: dict[str, list[float]] = {"rms": [], "change": []}
        for seed, step, name in rows:
            for quantity, column in values.items():
                laws = [law for law in LAWS["width"] if (law.coordinate, law.step) == (name, step)]
                expected = next((law.expected for law in laws if law.quantity == quantity), 0.0)
                off = scales.get(name.replace("weight.", ""), 0.0)
                column.append((width / 32) ** (expected + off) * (1 + 0.001 * seed))
        columns = {
            "seed": [seed for seed, _, _ in rows],
            "step": [step for _, step, _ in rows],
            "coordinate": [name for _, _, name in rows],
            **values,
        }
        key = made.put("coordinates", columns, width=width, salt=f"{scales}")
        sides.append(made.side_of(width, [key]))
    made.ask(*sides, kind="coordinates")


def test_laws_fold_by_ladder_and_open_when_one_is_not_pass(made: Made) -> None:
    law_study(made, ffn_up=1.0)
    made.ask(*(made.coordinates(width) for width in (32, 64)), kind="coordinates", axis="heldout")
    width, heldout = next(s for s in report_of(summarize(made.root)).sections if s.anchor == "coordinates").folds
    total = len(LAWS["width"])
    assert width.title == f"width: {total} laws, {total - 2} PASS, 2 FAIL"
    assert heldout.title == "heldout: 4 laws, 4 PASS"
    assert len(width.tables[0].rows) == total
    page = write_report(made.root).read_text()
    assert f"<details open><summary>{width.title}" in page
    assert f"<details><summary>{heldout.title}" in page
    text = (made.root / "report.md").read_text()
    assert f"- {width.title}\n- {heldout.title}\n" in text
    left = [line for line in text.splitlines() if line.startswith("| width | markov") and "slope" in line]
    assert len(left) == 2
    assert all("weight.ffn_up" in line for line in left)
    # what is not PASS is named
    alt = next(a for a in re.findall(r'alt="([^"]*)"', page) if a.startswith("Activation scales along width"))
    assert "weight.ffn_up" in alt
    assert "weight.ffn_down" not in alt


def test_laws_alone_make_a_page(made: Made) -> None:
    law_study(made)
    anchors = Shown(made.root).anchors
    assert "drift" not in anchors
    assert "coordinates" in anchors
    assert verdict_lines(summarize(made.root)) == ["study study has no drift"]


@pytest.mark.parametrize("sizes", [(1, 1, 1), (0, 1, 2), (3, 3, 4)])
def test_rungs_whose_sizes_have_no_logarithm_are_drawn_by_rank(made: Made, sizes: tuple[int, ...]) -> None:
    sides = [made.coordinates(32 * (at + 1), label=f"16e4a{at}g-per-group", size=s) for at, s in enumerate(sizes)]
    made.ask(*sides, kind="coordinates", axis="routing_hybrids")
    cells = [made.side(width, drift).cells for width, drift in ((32, 0.0), (64, 0.1))]
    made.ask(*(replace(side, cells=own) for side, own in zip(sides[:2], cells, strict=True)))
    write_report(made.root)
    drawn = {path.stem for path in (made.root / "figures").iterdir()}
    assert {"coordinates-routing_hybrids-markov-complete_mue", "drift-width"} <= drawn


def test_cost_by_rung_names_ladder_and_control(made: Made) -> None:
    reference = made.side(32)
    made.ask(reference, made.side(64, 0.1), axis="bridges", ladder="bridge_1")
    made.ask(reference, made.side(64, -2.0), axis="control", expected="FAIL")
    table = rung_cost_table(summarize(made.root))
    assert [row.cells[0] for row in table.rows] == ["bridge 1"] * 2 + ["width (control)"] * 2
    text = Shown(made.root).text
    assert text.index("Core-seconds by axis") < text.index("<details><summary>Core-seconds by rung")
