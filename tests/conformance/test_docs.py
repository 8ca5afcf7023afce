"""Every check has a page with its law; the index, the table of bugs and the examples agree with the code."""

import ast
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from mue_check.cli import main
from mue_check.conformance.check import Check
from mue_check.conformance.known_bugs import KNOWN_BUGS
from mue_check.conformance.registry import CHECKS
from mue_check.mutants.routing import MUTANTS as BUGS
from mue_check.routing.claim import ExpertLayout, RoutingSpec, claim_of

PAGES = Path(__file__).parents[2] / "mue_check" / "conformance" / "pages"
INDEX = (PAGES / "README.md").read_text()
TEXTS = {path.stem: path.read_text() for path in sorted(PAGES.glob("*.md"))}


def severity_of(check: Check) -> str:
    return check.severity + (f" (must if {check.must_if} is claimed)" if check.must_if else "")


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading of the index."""
    _, _, below = INDEX.partition(f"{heading}\n")
    lines = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert lines, heading
    _, _, *body = lines.group().splitlines()
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in body]


def blocks_of(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_every_page_belongs_to_a_check() -> None:
    assert set(TEXTS) - {"README"} == {check.id for check in CHECKS}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_page_agrees_with_its_check(check: Check) -> None:
    title, law, facts, *_ = TEXTS[check.id].split("\n\n")
    assert title == f"# {check.id}"
    assert check.law in law
    candidates = ", ".join(sorted(check.candidates, reverse=True))
    assert facts == " · ".join((severity_of(check), check.question, candidates, f"since {check.since}", check.source))
    parts = re.findall(r"^## (.*)$", TEXTS[check.id], re.MULTILINE)
    assert parts == ["Why it matters", "What is measured", "How to fix"]
    assert 15 <= TEXTS[check.id].count("\n") <= 40


def test_the_index_lists_every_check_in_order() -> None:
    expected = [[f"[{c.id}]({c.id}.md)", severity_of(c), c.question, c.law] for c in CHECKS]
    assert rows_of("# The checks") == expected


def test_the_table_of_bugs_is_the_one_in_the_code() -> None:
    expected = []
    for row, known in KNOWN_BUGS.items():
        by = dict.fromkeys(f"[{bug.caught_by}]({bug.caught_by}.md)" for bug in BUGS if bug.row == row)
        expected.append([str(row), known.what, known.seen, ", ".join(by) or "`mue_check audit`"])
    assert rows_of("## Known bugs") == expected


@pytest.mark.parametrize("row", sorted({bug.row for bug in BUGS}))
def test_the_page_of_the_check_that_catches_a_bug_cites_it(row: int) -> None:
    pages = " ".join(TEXTS[bug.caught_by] for bug in BUGS if bug.row == row)
    missing = [number for number in re.findall(r"#\d+", KNOWN_BUGS[row].seen) if number not in pages]
    assert not missing


def test_every_field_of_a_claim_is_explained() -> None:
    fields_listed = [row[0] for row in rows_of("## Claims")]
    assert fields_listed == [f"`{f.name}`" for f in fields(RoutingSpec)]
    assert all(f"`{f.name}`" in INDEX for f in fields(ExpertLayout))


@pytest.mark.parametrize("name", TEXTS)
def test_a_page_is_plain_text_with_right_examples_and_links(name: str) -> None:
    text = TEXTS[name]
    assert text.replace("·", "").isascii()
    assert not [line for line in text.splitlines() if line != line.rstrip()]
    for target in re.findall(r"\]\(([^)#]+)", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)):
        assert (PAGES / target).exists(), target
    for block in blocks_of(text, "python"):
        ast.parse(block)
    for values in map(tomllib.loads, blocks_of(text, "toml")):
        if not set(values) <= {check.id for check in CHECKS}:  # else expected failures
            claim_of(values, name)


def test_explain_prints_a_page_and_lists_the_ids(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "bias-selection"]) == 0
    assert capsys.readouterr().out == TEXTS["bias-selection"]
    assert main(["explain"]) == 0
    assert capsys.readouterr().out == INDEX
    assert main(["explain", "../../errors"]) == 2
    assert "allowed are aux-finite, aux-gradient" in capsys.readouterr().err
