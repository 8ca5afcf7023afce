"""The committed example is what the README says of it, judged again by today's code."""

from pathlib import Path

from mue_check.report import summarize
from mue_check.report.tables import interval_text

ROOT = Path(__file__).parents[2]


def test_the_readme_quotes_the_example() -> None:
    summary = summarize(ROOT / "reports" / "example")
    assert summary.as_expected
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for found in summary.drifts:
        assert interval_text(found.drift.interval) in readme, found.comparison.name
        assert f"| {found.comparison.sides[-1].label} | {found.comparison.corpus} |" in readme
