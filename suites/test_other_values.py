"""Weight decay and init std as the swept value: they carry over as the learning rate does."""

import pytest

from mue_check.pytest_plugin import Case, Expect
from mue_check.study.drift import ask_drift
from mue_check.study.setting import Study


# two doublings are more than so short a training can tell apart (docs/choices.md)
@pytest.mark.axis("width", ladder="width", corpora=1, targets=1)
def test_weight_decay_with_width(study: Study, target_case: Case, expect: Expect) -> None:
    """The optimal weight decay lies between the two published forms, which differ by rho_d."""
    expect(ask_drift(study, target_case.ladder, target_case.target, knob="weight_decay"))


@pytest.mark.axis("activated_experts", corpora=1, targets=2)
def test_weight_decay_with_activated_experts(study: Study, target_case: Case, expect: Expect) -> None:
    """The optimal weight decay of the dense model is the mixture's."""
    expect(ask_drift(study, target_case.ladder, target_case.target, knob="weight_decay"))


# the Markov source forgives any small init: no optimum to speak of (docs/choices.md)
@pytest.mark.axis("width", ladder="width", without=["markov"], targets=1)
def test_init_std_with_width(study: Study, target_case: Case, expect: Expect) -> None:
    """The optimal init std does not drift with width."""
    expect(ask_drift(study, target_case.ladder, target_case.target, knob="init_std"))


@pytest.mark.axis("activated_experts", without=["markov"], targets=1)
def test_init_std_with_activated_experts(study: Study, target_case: Case, expect: Expect) -> None:
    """The optimal init std of the dense model is the mixture's."""
    expect(ask_drift(study, target_case.ladder, target_case.target, knob="init_std"))
