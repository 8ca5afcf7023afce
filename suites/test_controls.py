"""Controls: can the suites tell a correct rule from a wrong one?"""

import pytest

from mue_check.pytest_plugin import Expect, TargetCase
from mue_check.questions.controls import ask_null_control, ask_positive_control
from mue_check.rules import get_rule
from mue_check.study.folder import Study


@pytest.mark.axis("width", ladder="width", targets=1)
def test_null(study: Study, target_case: TargetCase, expect: Expect) -> None:
    """The reference does not drift against itself with other seeds."""
    expect(ask_null_control(study, target_case.ladder))


@pytest.mark.axis("width", ladder="width", corpora=1, least=4)
def test_standard_parameterization(study: Study, target_case: TargetCase, expect: Expect) -> None:
    """Without scaling, the optimum drifts with width, by more than the tolerance after two doublings."""
    expect(ask_positive_control(study.with_rule(get_rule("standard")), target_case.ladder, target_case.target))


@pytest.mark.axis("bridges", ladder="bridge_1_by_group", corpora=1)
def test_experts_ignored(study: Study, target_case: TargetCase, expect: Expect) -> None:
    """A rule that knows nothing of experts: from a dense model to 16 of 16 experts, their own optimum drifts."""
    blind = study.with_rule(get_rule("completep_blind"))
    expect(ask_positive_control(blind, target_case.ladder, target_case.target, target_case.knob))


@pytest.mark.axis("batch", ladder="batch_at_fixed_tokens", corpora=1, least=4)
def test_no_batch_factors(study: Study, target_case: TargetCase, expect: Expect) -> None:
    """Without a factor for the batch size, the optimum drifts with it, by more than the tolerance."""
    expect(ask_positive_control(study.with_rule(get_rule("standard")), target_case.ladder, target_case.target))
