"""Depth: base values tuned at L blocks hold at 2L and 4L (CompleteP, alpha = 1)."""

import pytest

from mue_check.pytest_plugin import Case, Expect
from mue_check.study.drift import ask_drift
from mue_check.study.scales import ask_coordinates, ask_early_curve
from mue_check.study.setting import Study

pytestmark = pytest.mark.axis("depth", corpora=1)


def test_transfer(study: Study, target_case: Case, expect: Expect) -> None:
    """The loss-vs-LR optimum does not drift."""
    expect(ask_drift(study, target_case.ladder, target_case.target))


def test_scales(study: Study, ladder_case: Case, expect: Expect) -> None:
    """Each branch carries its share 1/L, and the whole moves alike."""
    expect(ask_coordinates(study, ladder_case.ladder))


def test_early_curve(study: Study, target_case: Case, expect: Expect) -> None:
    """A deeper model does not fall behind in the first steps."""
    expect(ask_early_curve(study, target_case.ladder, target_case.target))
