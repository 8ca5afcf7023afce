"""Duration: with more steps at a fixed batch the rule is approximate and leaves a stated residual."""

import pytest

from mue_check.pytest_plugin import Case, Expect
from mue_check.study.drift import ask_drift
from mue_check.study.setting import Study

pytestmark = pytest.mark.axis("duration", corpora=1)


def test_transfer(study: Study, target_case: Case, expect: Expect) -> None:
    """No more drift than sigma_0 accounts for."""
    expect(ask_drift(study, target_case.ladder, target_case.target))
