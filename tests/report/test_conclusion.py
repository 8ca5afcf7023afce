"""What a report says first: conclusion, facts, what is not as expected, and counts that agree with its tables."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mue_check.catalog import summarize, write_report
from mue_check.cli import main
from mue_check.overview.conclusion import conclusion, count_lines, facts
from mue_check.overview.report import report_of
from mue_check.questions.axes_report import AxesKind
from mue_check.questions.display import Palette
from mue_check.questions.drift import DriftFinding
from mue_check.questions.drift_plots import on_curve, plot_curves, plot_drifts
from mue_check.records import Environment
from tests.report.conftest import Made, make_full


def test_the_conclusion_counts_axes_and_names_the_weakest(made: Made) -> None:
    reference = made.side(32)
    made.ask(reference, made.side(64, 0.1))
    made.ask(reference, made.side(128, 0.28))
    made.ask(reference, made.side(64, -0.2), axis="depth")
    assert conclusion(summarize(made.root)) == (
        "Learning rate transfers on 2 of 2 axes within 0.5 octave; weakest: width, +0.28"
    )
    made.ask(reference, made.side(64, 1.5), axis="capacity")
    made.ask(reference, made.side(64, 0.1, diverges_from=-99.0), axis="granularity")
    approximate = {"axis": "batch", "ladder": "batch_at_fixed_steps", "expected": "RESIDUAL", "residual": 1.0}
    made.ask(reference, made.side(64, 0.9), **approximate)
    made.ask(reference, made.side(128, 3.0), axis="control", expected="FAIL")
    assert conclusion(summarize(made.root)) == (
        "Learning rate transfers on 2 of 5 axes within 0.5 octave and on 1 as closely as an approximate law states; "
        "it fails on capacity (+1.50), granularity (unresolved)"
    )


def test_without_drifts_the_conclusion_counts_answers(made: Made) -> None:
    made.ask(*(made.coordinates(width) for width in (32, 64)), kind="coordinates", axis="heldout")
    assert conclusion(summarize(made.root)) == "4 of 4 judged answers as expected"


def test_facts_say_when_with_what_and_where(tmp_path: Path) -> None:
    where = Environment(mue_check="0.5.0", torch="2.13.0", device="cpu", processor="EPYC")
    made = Made(tmp_path / "study", environment=where)
    made.ask(made.side(32), made.side(64, 0.1))
    made.ask(made.side(32), made.side(64, 2.0), axis="control", expected="FAIL")
    assert facts(summarize(made.root)) == {
        "Date": "2026-11-01 10:00 UTC",
        "Version": "mue_check 0.5.0, torch 2.13.0",
        "Machine": "cpu, EPYC",
        "Reference model": "d=32,L=2,H=32,B=512,T=100",
        "Rule": "complete_mue",
        "Tier": "smoke",
        "Data": "markov",
        "Command": "pytest suites/ -k d64",
        "Core time": "0.5 min",
    }


def test_what_is_not_as_expected_comes_first_and_links_to_its_place(tmp_path: Path) -> None:
    made = make_full(tmp_path / "study")
    made.ask(made.side(32), made.side(64, 0.1), axis="capacity")
    report = report_of(summarize(made.root))
    first = report.sections[0]
    assert first.anchor == "failures"
    assert [(row.verdict, row.link) for row in first.tables[0].rows] == [("FAIL", "axis-width")]
    # the axis that fails comes before the one that does not
    strips = next(AxesKind().sections(summarize(made.root))).strips
    assert [strip.title for strip in strips] == ["width", "capacity", "heldout"]
    page = write_report(made.root).read_text()
    ids = set(re.findall(r'id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= ids


def test_counts_agree_with_the_tables(tmp_path: Path) -> None:
    made = Made(tmp_path / "study")
    reference, target = made.side(32), made.side(64, 0.1)
    made.ask(reference, target)
    made.ask(reference, made.side(128, 1.5))
    for rule in ("mup", "standard"):  # they prescribe what complete_mue does here, and are shown with it
        other = Made(made.root, rule=rule)
        other.ask(reference, target, expected="")
    Made(made.root, rule="other").ask(reference, made.side(64, 2.0), expected="")
    summary = summarize(made.root)
    assert count_lines(summary)[1] == "drift: 1 PASS, 1 FAIL; 1 without an expected verdict"
    (table,) = next(s for s in report_of(summary).sections if s.anchor == "drift").tables
    assert Counter(row.verdict for row in table.rows) == {"PASS": 1, "FAIL": 2}


def test_a_star_lies_on_its_curve(made: Made) -> None:
    made.ask(made.side(32), made.side(64, 0.3))
    summary = summarize(made.root)
    axes = plot_curves(summary.of(DriftFinding), Palette.of_study(summary.comparisons)).axes[0]
    stars = [line for line in axes.lines if line.get_marker() == "*"]
    curves = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    assert len(stars) == len(curves) == 2
    for star, curve in zip(stars, curves, strict=True):
        (x,), (y,) = star.get_data()
        assert y == pytest.approx(np.interp(x, *curve.get_data()))
    assert np.isnan(on_curve(np.array([0.0, 1.0]), np.array([1.0, 2.0]), 1.5))
    assert "0.0078\n2\u207b\u2077" in [label.get_text() for label in axes.get_xticklabels()]


def test_an_unresolved_drift_is_not_drawn_at_0(made: Made) -> None:
    made.ask(made.side(32), made.side(64, 0.1, diverges_from=-99.0))
    summary = summarize(made.root)
    axes = plot_drifts(summary.of(DriftFinding), Palette.of_study(summary.comparisons)).axes[0]
    (text,) = [text for text in axes.texts if text.get_text() == "unresolved"]
    assert text.get_position() == (0.01, 0)
    assert text.get_transform() == axes.get_yaxis_transform()
    assert not [line for line in axes.lines if line.get_marker() == "o"]


def test_the_page_opens(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    made.ask(made.side(32), made.side(64, 0.1))
    assert main(["report", str(made.root), "--open", "--quiet"]) == 0
    assert opened == [(made.root / "report.html").as_uri()]
