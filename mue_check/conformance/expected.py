"""Expected failures: check ids with a reason. They are strict: a check that passes must leave the list."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from mue_check.conformance.result import CheckResult
from mue_check.errors import ClaimError


def read_expected(path: Path) -> dict[str, str]:
    """Expected failures from a TOML file, check id -> reason; ClaimError if the file is not that."""
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise ClaimError(f"expected failures {path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ClaimError(f"expected failures {path}: not TOML: {error}") from None
    for key, reason in values.items():
        if not isinstance(reason, str) or not reason.strip():
            raise ClaimError(f'expected failures {path}: {key} needs a reason: {key} = "why"')
    return values


def with_expected(results: Iterable[CheckResult], expected: Mapping[str, str]) -> tuple[list[CheckResult], list[str]]:
    """The results with expected failures (check id -> reason) applied, and the ids that match no result."""
    out = [r.expected_to_fail(expected[r.check]) if r.check in expected else r for r in results]
    return out, sorted(set(expected) - {r.check for r in out})
