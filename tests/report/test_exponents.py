"""The exponent of the optimum: what the law prescribes plus the drift that is left."""

from dataclasses import replace
from pathlib import Path

import pytest

from mue_check.catalog import summarize, write_report
from mue_check.questions.exponents import ExponentFinding, exponents
from mue_check.report.exponents import PUBLISHED, exponent_table
from tests.report.conftest import Made, Shown

LADDER = "duration_at_fixed_batch"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """+0.1 octave per doubling left over after the law's -0.5."""
    made = Made(tmp_path / "study")
    for times in (2, 4):
        longer = replace(made, steps=100 * times).side(32, 0.05 * times)
        sides = replace(made.side(32), size=1, label="T1"), replace(longer, size=times, label=f"T{times}")
        made.ask(*sides, axis="duration", ladder=LADDER)
    made.ask(made.side(32), made.side(64, 0.1))
    return tmp_path / "study"


def test_law_and_drift_make_the_exponent(study: Path) -> None:
    (found,) = summarize(study).of(ExponentFinding)
    assert found.comparison.ladder == LADDER
    assert found.prescribed == pytest.approx(-0.5)
    # 0.1 at one doubling and 0.2 at two
    assert found.raw.mean == pytest.approx(-0.4, abs=0.01)
    assert found.raw.low < -0.4 < found.raw.high
    assert found.raw.n == 4


def test_the_table_sets_others_beside_it(study: Path) -> None:
    summary = summarize(study)
    table = exponent_table(exponents(summary.of(ExponentFinding)))
    ours, *others = (row.cells for row in table.rows)
    assert ours[1] == "optimum under complete_mue, which prescribes -0.50"
    assert [row[3] for row in others] == [each.source for each in PUBLISHED if each.ladder == LADDER]
    assert others[1][2] == "-0.05 to +0.06"
    assert others[2][2] == "-0.35"
    assert "Exponents of batch and duration" in write_report(study, summary).read_text(encoding="utf-8")
    assert (study / "figures" / "exponents.svg").exists()


def test_a_study_without_these_ladders_has_no_such_section(tmp_path: Path) -> None:
    made = Made(tmp_path / "s")
    made.ask(made.side(32), made.side(64, 0.1))
    assert not summarize(tmp_path / "s").of(ExponentFinding)
    assert "exponents" not in Shown(tmp_path / "s").anchors
