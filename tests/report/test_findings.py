"""What is found and not judged: trends, speed-ups and routing variants, and the page around them."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mue_check.catalog import summarize, write_report
from mue_check.judge.verdict import Verdict
from mue_check.overview.report import verdict_lines
from mue_check.questions.routing import routing_table
from mue_check.questions.speed import SpeedupFinding, speedup_table
from mue_check.questions.summary import Summary
from mue_check.questions.trend import TrendFinding, trend_table
from mue_check.questions.tune_once import TuneOnceFinding, tune_once_table
from tests.report.conftest import Made, Shown


def capacity(made: Any, slope: float, *sizes: int, base: int = 16) -> None:
    reference = made.side(base)
    for size in sizes:
        drift = slope * math.log2(size / base)
        made.ask(reference, made.side(size, drift, spread=0.01), axis="capacity")


def test_the_trend_along_capacity_is_recovered_and_extrapolated(made: Made) -> None:
    capacity(made, 0.1, 64, 128)
    (found,) = summarize(made.root).of(TrendFinding)
    assert found.trend.slope.mean == pytest.approx(0.1, abs=1e-3)
    assert found.trend.at_size.mean == pytest.approx(0.6, abs=1e-2)
    table = trend_table([found])
    assert table.rows[0].cells[table.header.index("targets")] == "d64, d128"
    shown = Shown(made.root)
    assert "trend" in shown.anchors
    assert "only the spread over seeds" in shown.text
    assert "trend-capacity" in shown.figures


def test_no_trend_from_one_target_nor_along_other_ladders(made: Made) -> None:
    capacity(made, 0.1, 32)
    made.ask(made.side(32), made.side(64, 0.1))
    made.ask(made.side(32), made.side(128, 0.1))
    assert summarize(made.root).of(TrendFinding) == ()
    assert "trend" not in Shown(made.root).anchors


def test_speedup_is_a_finding_without_a_verdict(made: Made) -> None:
    asked = {"kind": "speedup", "axis": "activated_experts", "expected": ""}
    made.ask(made.learning(32, 1.0), made.learning(64, 2.0), **asked)
    made.ask(made.learning(32, 1.0), made.learning(128, 1.0, worst=40.0), **asked)
    summary = summarize(made.root)
    assert summary.verdicts == {}
    assert summary.verdict is Verdict.INCONCLUSIVE  # nothing is judged
    table = speedup_table(summary.of(SpeedupFinding))
    twice, never = table.rows
    assert twice.cells[table.header.index("times [95 %]")] == "2.00 [2.00, 2.00]"
    assert twice.cells[table.header.index("steps")] == "256"
    assert never.note == "no loss that all runs of both reach"
    shown = Shown(made.root)
    assert "speedup" in shown.anchors
    assert shown.figures == {"speedup-activated_experts-markov-complete_mue"}


def test_tune_once_is_judged_and_its_control_must_fail(made: Made) -> None:
    three = [made.final(width, loss) for width, loss in ((32, 2.5), (64, 2.4), (128, 2.2))]
    made.ask(*three, kind="tune_once", axis="speed")
    made.ask(*three[::-1], kind="tune_once", axis="control", expected="FAIL")
    summary = summarize(made.root)
    assert summary.verdict is Verdict.PASS
    assert set(summary.verdicts) == {"tune once", "control"}
    table = tune_once_table(summary.of(TuneOnceFinding))
    fell, rose = (dict(zip(table.header, row.cells, strict=True)) for row in table.rows)
    assert (fell["verdict"], rose["verdict"]) == ("PASS", "FAIL")
    assert (fell["models"], fell["loss, nats"]) == ("d32, d64, d128", "2.500, 2.400, 2.200")
    assert fell["changes [95 %], nats"].startswith("-0.100 [")
    assert rose["axis"] == "width (control)"
    assert "tune-once" in Shown(made.root).anchors


def routed(root: Path) -> Summary:
    """Two routers on one target with their drifts, and a third whose drift nobody asked."""
    for router, drift in (("sigmoid_norm", 0.1), ("switch", 1.5), ("moge", None)):
        made = Made(root, router=router)
        made.ask(made.load("16e4a", [0.25] * 4), kind="routing", axis="capacity", expected="")
        if drift is not None:
            target = made.side(64, drift, label="16e4a", salt=router)
            made.ask(made.side(32, label="8e2a", salt=router), target, axis="capacity")
    # another value's drift is not the router's
    made = Made(root, router="moge", knob="init_std")
    made.ask(made.side(32), made.side(64, 0.3, label="16e4a"), axis="capacity")
    return summarize(root)


def test_routing_variants_are_tabled_with_their_own_drift(tmp_path: Path) -> None:
    summary = routed(tmp_path / "study")
    table = routing_table(summary)
    rows = {row.cells[0]: dict(zip(table.header, row.cells, strict=True)) for row in table.rows}
    assert [rows[name]["verdict"] for name in ("sigmoid_norm", "switch", "moge")] == ["PASS", "FAIL", "-"]
    assert rows["switch"]["drift [95 %] (octaves)"].startswith("+1.50 [")
    assert rows["moge"]["drift [95 %] (octaves)"] == "-"
    assert rows["moge"]["busiest expert / mean"] == "1.00 [1.00, 1.00]"
    assert rows["moge"]["variance factor"] == "1.25 [1.25, 1.25]"
    assert rows["moge"]["sum of weights"] == "1.00 [1.00, 1.00]"
    shown = Shown(tmp_path / "study")
    assert "routing" in shown.anchors
    assert "routing-capacity" in shown.figures


def test_one_seed_and_a_lost_target_make_a_page(made: Made) -> None:
    reference, target = made.side(32), made.side(64, 0.25)
    made.ask(*(replace(side, cells=side.cells[:1]) for side in (reference, target)))
    capacity(made, 0.0, 32)
    made.ask(reference, made.side(64, 0.1, diverges_from=-99.0), axis="capacity")
    write_report(made.root)
    assert any("one seed" in line for line in verdict_lines(summarize(made.root)))


def test_contents_name_every_section_that_is_there(tmp_path: Path) -> None:
    routed(tmp_path / "study")
    made = Made(tmp_path / "study")
    capacity(made, 0.1, 64, 128)
    made.ask(made.learning(32, 1.0), made.learning(64, 2.0), kind="speedup", axis="activated_experts", expected="")
    page = write_report(made.root).read_text()
    assert {path.stem for path in (made.root / "figures").iterdir()} == Shown(made.root).figures
    anchors = re.findall(r'<li><a href="#([a-z]+)"', page)
    assert anchors == re.findall(r'<section id="([a-z]+)"', page)
    assert {"failures", "axes", "drift", "routing", "cost", "again"} <= set(anchors)
