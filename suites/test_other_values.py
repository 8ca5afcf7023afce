"""Weight decay and init std as the swept value: they carry over like the learning rate."""

import pytest

from mue_check.pytest_plugin import Expect, TargetCase
from mue_check.questions.drift import ask_drift, sweep_ladder
from mue_check.questions.study import Study
from mue_check.rules import Knob

KNOBS: tuple[Knob, ...] = ("weight_decay", "init_std")


def ask(study: Study, case: TargetCase, knob: Knob, expect: Expect) -> None:
    """The drift of a value's optimum, on a corpus where it has a sharp one."""
    if not study.task(sweep_ladder(case.ladder, knob)).can_sweep(knob):
        pytest.skip(f"no setting is known at which {knob} has a sharp optimum on {study.corpus_name} (docs/choices.md)")
    expect(ask_drift(study, case.ladder, case.target, knob=knob))


@pytest.mark.axis("width", ladder="width", targets=1)
@pytest.mark.parametrize("knob", KNOBS)
def test_width(study: Study, target_case: TargetCase, knob: Knob, expect: Expect) -> None:
    """The optimum stays; that of weight decay lies between the two published forms, which differ by rho_d."""
    ask(study, target_case, knob, expect)


@pytest.mark.axis("activated_experts", targets=1)
@pytest.mark.parametrize("knob", KNOBS)
def test_activated_experts(study: Study, target_case: TargetCase, knob: Knob, expect: Expect) -> None:
    """The optimal value of the dense model is the mixture's."""
    ask(study, target_case, knob, expect)
