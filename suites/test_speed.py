"""What experts bring on a task that needs them: steps to a loss, and lower final losses at the same base values."""

import pytest

from mue_check.pytest_plugin import Case, Expect, TargetCase
from mue_check.questions.speed import ask_speed
from mue_check.questions.tune_once import ask_tune_once, ask_tune_once_control
from mue_check.rules import get_rule
from mue_check.study.folder import Study


@pytest.mark.axis("speed", question="speed", corpora=1)
def test_speed(study: Study, target_case: TargetCase, expect: Expect) -> None:
    """Steps to a loss, reference over target, at the same hyperparameters. Fails only if a model does not learn."""
    expect(ask_speed(study, target_case.ladder, target_case.target))


@pytest.mark.axis("speed", question="tune_once", corpora=1)
def test_tune_once(study: Study, ladder_case: Case, expect: Expect) -> None:
    """The final loss falls along activated experts, capacity, granularity and depth."""
    expect(ask_tune_once(study, ladder_case.ladder))


@pytest.mark.axis("speed", question="tune_once", corpora=1, ladder="tune_once_granularity", not_in=("smoke",))
def test_tune_once_fails(study: Study, ladder_case: Case, expect: Expect) -> None:
    """Without R, the more experts share a fixed active width, the higher is the loss."""
    expect(ask_tune_once_control(study.with_rule(get_rule("completep_blind")), ladder_case.ladder))
