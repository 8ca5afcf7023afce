"""Expected failures: a user's file of check ids with the reason why each fails. Strict: what passes must leave it."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from mue_check.conformance.result import Result
from mue_check.errors import ClaimError


def read_expected(path: Path) -> dict[str, str]:
    """Expected failures from a TOML file, check id -> reason; ClaimError names what is wrong with it."""
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


def with_expected(results: Iterable[Result], expected: Mapping[str, str]) -> tuple[list[Result], list[str]]:
    """Results in the light of expected failures (check id -> reason), and the ids that match no result."""
    out = [r.expected_to_fail(expected[r.check]) if r.check in expected else r for r in results]
    return out, sorted(set(expected) - {r.check for r in out})
