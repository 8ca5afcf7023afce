"""The cases of the suites' tests: from a test's ``axis`` marker and the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

from mue_check.questions.case import Case, Scope

if TYPE_CHECKING:
    from mue_check.suite.settings import Settings

MARKER = (
    "axis(name, question=drift|scales|speed|tune_once, corpora=N, ladder=NAME, targets=N, least=X, not_in=TIERS): "
    "what a suite's test is about; on the first N corpora, one ladder and its first N targets, or those X times its "
    "reference; in all tiers but some"
)


def fixture_cases(
    names: Collection[str], settings: Settings, marker: pytest.Mark | None
) -> Iterator[tuple[str, Sequence[Case]]]:
    """The cases of each fixture among ``names`` that some kind of question declares."""
    from mue_check.catalog import CASES

    scope = Scope(axis=marker.args[0], **marker.kwargs) if marker else Scope()
    for name, make in CASES.items():
        if name in names:
            yield name, make(settings, scope)
