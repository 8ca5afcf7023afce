"""The audit of dependencies fails on what is known to be vulnerable, and never calls unknown packages fine."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

report = runpy.run_path(str(Path(__file__).parents[1] / ".ci" / "audit_dependencies.py"))["report"]
BUG = {"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}


@pytest.mark.parametrize(
    ("packages", "code", "says"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "no known vulnerability in 1 packages"),
        ([{"name": "a", "version": "1", "vulns": [BUG]}], 1, "a 1 has PYSEC-1, fixed in 1.1"),
        (
            [{"name": "a", "skip_reason": "not found"}],
            0,
            "no database that is reachable knows any of the 1",
        ),
        ([{"name": "a", "skip_reason": ""}, {"name": "b", "version": "1", "vulns": []}], 0, "not in the database: a"),
    ],
)
def test_what_pip_audit_found(packages: list[dict[str, Any]], code: int, says: str) -> None:
    text, found = report(json.dumps({"dependencies": packages}))
    assert (found, says in text) == (code, True), text


def test_no_answer_is_said() -> None:
    assert report("") == ("dependencies: not audited, the database of vulnerabilities is not reachable", 0)
