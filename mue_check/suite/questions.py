"""Tests along an axis of scale or of experts: a suite file imports those that its axis has.

The marker ``axis`` of the importing file selects the ladders.
"""

from mue_check.questions.case import Case, TargetCase
from mue_check.questions.drift import ask_drift
from mue_check.questions.early import ask_early_curve
from mue_check.questions.question import Expect
from mue_check.questions.scales import ask_scales
from mue_check.study.folder import Study


def test_transfer(study: Study, target_case: TargetCase, expect: Expect) -> None:
    """The optimum of the swept value does not drift, or no further than an approximate law states."""
    expect(ask_drift(study, target_case.ladder, target_case.target, knob=target_case.knob))


def test_scales(study: Study, ladder_case: Case, expect: Expect) -> None:
    """The ladder's laws of activations and weights hold (``judge.laws``)."""
    expect(ask_scales(study, ladder_case.ladder))


def test_early_curve(study: Study, early_case: TargetCase, expect: Expect) -> None:
    """The target does not fall behind the reference in the first steps."""
    expect(ask_early_curve(study, early_case.ladder, early_case.target))
