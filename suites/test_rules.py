"""Other rules that people use (--beside standard,mup,completep_blind), measured like the rule under test.

The results are findings: no verdict is expected.
"""

from mue_check.pytest_plugin import Expect, TargetCase
from mue_check.questions.drift import ask_drift
from mue_check.questions.scales import ask_scales
from mue_check.study.folder import Study


def test_transfer(study: Study, rule_case: TargetCase, expect: Expect) -> None:
    """The drift of the rule along every axis."""
    expect(ask_drift(study, rule_case.ladder, rule_case.target, knob=rule_case.knob, finding=True))


def test_scales(study: Study, rule_ladder_case: TargetCase, expect: Expect) -> None:
    """Which of Complete-muE's laws the rule breaks."""
    expect(ask_scales(study, rule_ladder_case.ladder, finding=True))
