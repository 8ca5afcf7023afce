"""Width: base values tuned at d hold at 2d and 4d, dense or mixture, and activations move alike."""

import pytest

from mue_check.pytest_plugin import Case, Expect
from mue_check.study.drift import ask_drift
from mue_check.study.scales import ask_coordinates, ask_early_curve
from mue_check.study.setting import Study

pytestmark = pytest.mark.axis("width")


def test_transfer(study: Study, target_case: Case, expect: Expect) -> None:
    """The loss-vs-LR optimum does not drift."""
    expect(ask_drift(study, target_case.ladder, target_case.target))


def test_scales(study: Study, ladder_case: Case, expect: Expect) -> None:
    """Exponents against width: activations, their changes, and the weights of every role."""
    expect(ask_coordinates(study, ladder_case.ladder))


def test_early_curve(study: Study, target_case: Case, expect: Expect) -> None:
    """A wider model does not fall behind in the first steps."""
    expect(ask_early_curve(study, target_case.ladder, target_case.target))
