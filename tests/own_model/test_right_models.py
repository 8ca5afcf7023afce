"""Right models of other kinds pass over several seeds, and each mistake in them is named with its module."""

from dataclasses import replace

import pytest

from mue_check import check_model
from mue_check.judge.verdict import Verdict
from tests.own_model.example import WIDTHS, suspects
from tests.own_model.right_models import MISTAKES, RIGHT


@pytest.mark.parametrize("first_seed", [0, 1000])
@pytest.mark.parametrize("kind", RIGHT)
def test_a_right_model_passes(kind: str, first_seed: int) -> None:
    report = check_model(replace(RIGHT[kind], first_seed=first_seed), sizes=WIDTHS)
    assert report.verdict is Verdict.PASS, str(report)
    assert not report.faults


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_module(mistake: str) -> None:
    wrong, named = MISTAKES[mistake]
    report = check_model(wrong, sizes=WIDTHS, base=0, seeds=(4,))
    assert suspects(report)[0] == named
