"""Bridges: dense to Dense MoE (I), Dense MoE to sparse (II), and their composition against the direct route."""

import pytest

from mue_check.pytest_plugin import Case, Expect
from mue_check.study.drift import ask_drift
from mue_check.study.scales import ask_coordinates
from mue_check.study.setting import Study

pytestmark = pytest.mark.axis("bridges", corpora=1)


def test_transfer(study: Study, target_case: Case, expect: Expect) -> None:
    """The loss-vs-LR optimum does not drift across a bridge, and both routes begin at the same one."""
    expect(ask_drift(study, target_case.ladder, target_case.target))


def test_scales(study: Study, ladder_case: Case, expect: Expect) -> None:
    """The branch starts alike on both ends, and the function moves alike."""
    expect(ask_coordinates(study, ladder_case.ladder))
