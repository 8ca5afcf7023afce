"""Expected failures: check ids with a reason. They are strict: a check that passes must leave the list."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from mue_check.conformance.result import CheckResult
from mue_check.errors import ClaimError
from mue_check.input_files import read_toml


def read_expected(path: Path) -> dict[str, str]:
    """Expected failures from a TOML file, check id -> reason; ClaimError if the file is not that."""
    values = read_toml(path, f"expected failures {path}", ClaimError)
    for key, reason in values.items():
        if not isinstance(reason, str) or not reason.strip():
            raise ClaimError(f'expected failures {path}: {key} needs a reason: {key} = "why"')
    return values


def with_expected(results: Iterable[CheckResult], expected: Mapping[str, str]) -> tuple[list[CheckResult], list[str]]:
    """The results with expected failures (check id -> reason) applied, and the ids that match no result."""
    out = [r.expected_to_fail(expected[r.check]) if r.check in expected else r for r in results]
    return out, sorted(set(expected) - {r.check for r in out})
