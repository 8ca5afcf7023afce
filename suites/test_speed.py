"""Convergence: how much sooner mixtures reach a loss than dense models, and capacity than granularity. Findings."""

import pytest

from mue_check.pytest_plugin import Expect, TargetCase
from mue_check.questions.speed import ask_speed
from mue_check.questions.study import Study


@pytest.mark.axis("speed", question="speed")
def test_speed(study: Study, target_case: TargetCase, expect: Expect) -> None:
    """Steps to a loss, reference over target, at the same hyperparameters; both learn."""
    expect(ask_speed(study, target_case.ladder, target_case.target))
