"""Convergence: how many steps mixtures need to reach a loss, compared with dense models. The results are findings."""

import pytest

from mue_check.pytest_plugin import Expect, TargetCase
from mue_check.questions.speed import ask_speed
from mue_check.questions.study import Study


@pytest.mark.axis("speed", question="speed")
def test_speed(study: Study, target_case: TargetCase, expect: Expect) -> None:
    """Steps to a loss, reference over target, at the same hyperparameters. Fails only if a model does not learn."""
    expect(ask_speed(study, target_case.ladder, target_case.target))
