"""Batch: at fixed tokens the optimum stays; at fixed steps the rule is approximate and leaves a stated residual."""

import pytest

from mue_check.pytest_plugin import Case, Expect
from mue_check.study.drift import ask_drift
from mue_check.study.setting import Study

pytestmark = pytest.mark.axis("batch", corpora=1)


def test_transfer(study: Study, target_case: Case, expect: Expect) -> None:
    """No drift at fixed tokens; at fixed steps no more than sigma_0 accounts for."""
    expect(ask_drift(study, target_case.ladder, target_case.target))
