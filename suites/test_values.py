"""Values: the optimizer applies the values that the rule prescribes, for every target of every axis.

This covers weight decay, eps and betas, which activations cannot show. Takes seconds.
"""

import pytest

from mue_check.judge.verdict import Verdict
from mue_check.pytest_plugin import TargetCase
from mue_check.questions.study import Study
from mue_check.questions.values import audit_rung


def test_values(study: Study, any_case: TargetCase) -> None:
    """Init std, learning rate, weight decay, eps and betas of every parameter, measured by probing the optimizer."""
    audit = audit_rung(study, any_case.ladder, any_case.target)
    if audit.verdict is not Verdict.PASS:
        pytest.fail(f"{any_case.label}, rule {study.rule.name}: {audit}", pytrace=False)
