"""The report of synthetic studies: exact parabolas whose optimum is known, and no training."""

import base64
import gzip
import math
import re
from html import unescape
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from mue_check.catalog import summarize, write_report
from mue_check.errors import StoreError
from mue_check.judge.verdict import Verdict
from mue_check.overview.report import verdict_lines
from mue_check.questions.drift import DriftFinding
from mue_check.questions.drift_report import regret_text
from mue_check.report.section import svg_of
from tests.report.conftest import Made, Shown, make_full

SEEDS = 4


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written report of every kind of question."""
    root = tmp_path_factory.mktemp("studies") / "one"
    make_full(root)
    write_report(root)
    return root


def test_summary_recovers_known_drifts_and_their_regret(study: Path) -> None:
    summary = summarize(study)
    near, far, control = summary.of(DriftFinding)
    assert near.drift.interval.mean == pytest.approx(0.25)
    assert near.drift.verdict is Verdict.PASS
    # 0.02 nats per octave^2 at a drift of 0.25 +- 0.02
    regret = 0.02 * (0.25**2 + 0.02**2)
    assert near.drift.regret == pytest.approx(regret)
    assert regret_text(near) == f"{regret:.4f} ({regret / 0.05:.0%})"
    assert far.drift.interval.mean == pytest.approx(1.25)
    assert far.drift.verdict is Verdict.FAIL
    assert control.comparison.is_control
    assert control.drift.verdict == control.comparison.expected


def test_overall_verdict_is_fail_for_one_failed_drift_and_not_for_the_failed_control(study: Path) -> None:
    summary = summarize(study)
    assert summary.verdict is Verdict.FAIL
    assert not summary.as_expected
    assert summary.verdicts["control"] == ((Verdict.FAIL, "FAIL"),)


def test_core_seconds_count_a_shared_reference_once(study: Path) -> None:
    summary = summarize(study)
    # four loss-grid arms of four cells, two early curves, three coordinates
    assert summary.costs.total == pytest.approx(4 * SEEDS * 2.5 + 2 + 3)
    by_rung = summary.costs.by_rung(summary.comparisons)
    rungs = {(c.comparison.axis, c.side.label): c.core_seconds for c in by_rung}
    assert rungs["width", "d32"] == pytest.approx(SEEDS * 2.5 + 1)
    # the control shares the reference of the width ladder: it counts in each axis
    axes = summary.costs.by_axis(summary.comparisons)
    assert axes == {"width": 3 * SEEDS * 2.5 + 2, "heldout": 3.0, "control": 2 * SEEDS * 2.5}
    assert sum(axes.values()) > summary.costs.total


def test_terminal_lines_are_a_table_of_one_width(study: Path) -> None:
    header, near, far, control, *causes = verdict_lines(summarize(study))
    assert causes[0].startswith("what next, ")
    at = header.index("verdict")
    assert [line[at:].split()[0] for line in (near, far, control)] == ["PASS", "FAIL", "FAIL"]
    assert "+0.25 [+0.21, +0.29]" in near
    assert control[header.index("expected") :].startswith("FAIL")


def test_page_and_markdown_hold_numbers_and_verdicts(study: Path) -> None:
    for name in ("report.html", "report.md"):
        text = (study / name).read_text()
        assert "+1.25 [+1.21, +1.29]" in text.replace("\\", "")
        assert "pytest suites/ -k d128" in text
        assert "FAIL" in text
    page = (study / "report.html").read_text()
    assert page.count("<img ") == page.count(' alt="') == len(list((study / "figures").glob("*.svg"))) == 6


def test_page_is_self_contained(study: Path) -> None:
    page = (study / "report.html").read_text()
    assert page.count("<script") == 1
    assert "http" not in page
    assert "src=" not in page
    figures = [_unpacked(text) for text in re.findall(r'data-figure="([^"]*)"', page)]
    (shared,) = re.findall(r'data-packed="([^"]*)"', page)
    letters = set(re.findall(rb'<path id="([^"]*)"', _unpacked(shared)))
    files = [file.read_bytes() for file in (study / "figures").glob("*.svg")]
    assert sorted(figures) == sorted(re.sub(rb'<path id="DejaVu[^>]*/>', b"", file) for file in files)
    for figure in figures:
        drawn = {name for name in re.findall(rb'xlink:href="#([^"]*)"', figure) if name.startswith(b"DejaVu")}
        assert drawn
        assert drawn <= letters


def _unpacked(text: str) -> bytes:
    return gzip.decompress(base64.b64decode(text))


def test_every_linked_figure_is_there_and_is_an_image(study: Path) -> None:
    links = re.findall(r"\((figures/[^)]*)\)", (study / "report.md").read_text())
    assert len(links) == 6
    for link in links:
        assert "<svg" in (study / link).read_text(encoding="utf-8")


def test_writing_twice_gives_the_same_bytes(study: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(study.rglob("*")) if path.is_file()}

    before = content()
    assert write_report(study) == study / "report.html"
    assert content() == before


def test_a_figure_is_drawn_again_only_where_it_or_its_data_changed(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []

    def draw(figure: Figure) -> bytes:
        drawn.append(figure)
        return svg_of(figure)

    monkeypatch.setattr("mue_check.report.write.svg_of", draw)

    def report(root: Path) -> int:
        drawn.clear()
        write_report(root)
        return len(drawn)

    made.ask(made.side(32), made.side(64, 0.25))
    files = report(made.root)
    assert files == len(list((made.root / "figures").iterdir())) > 0
    assert report(made.root) == 0
    changed = min((made.root / "figures").iterdir())
    content = changed.read_bytes()
    changed.write_bytes(content.replace(b"</svg>", b"<script/></svg>"))
    assert report(made.root) == 1
    assert changed.read_bytes() == content
    made.ask(made.side(32), made.side(64, 0.5))
    assert report(made.root) == files


def test_latest_points_at_the_study_and_spares_what_is_not_a_link(study: Path, tmp_path: Path) -> None:
    assert (study.parent / "latest").readlink() == Path(study.name)
    made = Made(tmp_path / "two")
    made.ask(made.side(32), made.side(64, 0.25))
    (tmp_path / "latest").mkdir()
    write_report(made.root)
    assert not (tmp_path / "latest").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "two"]


def test_names_from_records_are_escaped(tmp_path: Path) -> None:
    hostile = '_<script>alert("$x$")</script>|../[a](b)\x1b\n`'
    root = tmp_path / "study"
    make_full(root, hostile)
    page = write_report(root).read_text()
    assert page.count("<script") == 1
    assert '<script>alert("$x$")</script>' in unescape(page)
    text = (root / "report.md").read_text()
    assert "<script" not in text
    rows = [line for line in text.splitlines() if line.startswith("| width | d64")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows[:1]}) == 1
    assert "\x1b" not in page + text + "".join(verdict_lines(summarize(root)))
    assert {path.parent for path in root.rglob("*.svg")} == {root / "figures"}


def test_diverged_points_are_left_out_and_an_unresolved_optimum_says_why(made: Made) -> None:
    reference = made.side(32)
    made.ask(reference, made.side(64, 0.25, diverges_from=-4.5))
    made.ask(reference, made.side(128, 0.25, diverges_from=-99.0))
    some, every = summarize(made.root).of(DriftFinding)
    assert some.drift.interval.mean == pytest.approx(0.25)
    assert every.drift.verdict is Verdict.FAIL
    reason = "unresolved: target: every value diverged"
    assert reason in Shown(made.root).text
    assert any(reason in line for line in verdict_lines(summarize(made.root)))


def test_early_curve_and_coordinates_that_are_not_finite_fail(made: Made) -> None:
    made.ask(made.early(32, 1.0), made.early(64, math.nan), kind="early_curve")
    sides = [made.coordinates(width, math.nan) for width in (32, 64)]
    made.ask(*sides, kind="coordinates", axis="depth")
    summary = summarize(made.root)
    assert {verdict for pairs in summary.verdicts.values() for verdict, _ in pairs} == {Verdict.FAIL}
    assert "a run diverged within these steps" in write_report(made.root).read_text()
    assert verdict_lines(summary)[0].startswith("what next, depth, complete_mue: laws FAIL")


def test_empty_study_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no study"):
        write_report(tmp_path)


def test_missing_cell_names_the_question_and_writes_nothing(made: Made) -> None:
    target = made.side(64, 0.25)
    made.ask(made.side(32), target)
    (made.root / "cells" / f"{target.cells[0]}.json").unlink()
    with pytest.raises(StoreError, match=r"cannot judge 'drift-width-d64-[^']*': cannot read") as caught:
        write_report(made.root)
    assert "\n" not in str(caught.value)
    assert not (made.root / "report.html").exists()
