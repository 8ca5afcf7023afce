"""Values: the optimizer applies the values that the rule prescribes, for every target of every axis.

This covers weight decay, eps and betas, which activations cannot show. Takes seconds.
"""

from mue_check.pytest_plugin import Expect, TargetCase
from mue_check.questions.values import ask_values
from mue_check.study.folder import Study


def test_values(study: Study, any_case: TargetCase, expect: Expect) -> None:
    """Init std, learning rate, weight decay, eps and betas of every parameter, measured by probing the optimizer."""
    expect(ask_values(study, any_case.ladder, any_case.target))
