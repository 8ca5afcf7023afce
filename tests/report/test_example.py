"""The committed example is what the README says of it, judged again by today's code."""

import tarfile
from pathlib import Path

import pytest

from mue_check.catalog import summarize
from mue_check.judge.verdict import Verdict
from mue_check.questions.compare import SideBySide, side_by_side
from mue_check.questions.question import Summary
from mue_check.report.format import in_words, interval_text

ROOT = Path(__file__).parents[2]
RULES = ("complete_mue", "completep_blind", "mup", "standard")


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    folder = tmp_path_factory.mktemp("example") / "example"
    with tarfile.open(ROOT / "reports" / "example" / "records.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    return summarize(folder)


def readme_rows(sides: SideBySide) -> list[str]:
    """The README's table: the last target of every ladder on the first corpus, one column per rule."""
    last = {
        q.comparison.ladder: q for q in sides.drifts if (q.comparison.corpus, q.comparison.knob) == ("markov", "lr")
    }
    rows = []
    for question in last.values():
        found = [question.found[rule].drift for rule in RULES]
        cells = [f"{interval_text(drift.interval)} {drift.verdict}" for drift in found]
        rows.append(f"| {' | '.join([in_words(question.comparison.ladder), question.target, *cells])} |")
    return rows


def law_rows(sides: SideBySide) -> list[str]:
    """The README's second table: how many laws each rule breaks on each ladder, and the first of them."""
    rows = []
    for laws in sides.laws:
        if laws.comparison.corpus != "markov":
            continue
        cells = [in_words(laws.comparison.ladder), str(len(laws.found["complete_mue"].results))]
        for rule in RULES:
            failed = [result.law.name for result in laws.found[rule].results if result.verdict is Verdict.FAIL]
            cells.append(f"{len(failed)}: {failed[0]}" if failed else "0")
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def test_the_readme_quotes_the_example(summary: Summary) -> None:
    assert summary.as_expected
    sides = side_by_side(["example"], [summary])
    assert set(RULES) <= set(sides.columns)
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    for row in readme_rows(sides) + law_rows(sides):
        assert row in readme, row
