"""Weight decay and init std: their optima carry over like that of the learning rate."""

import pytest

from mue_check.pytest_plugin import Expect, TargetCase
from mue_check.questions.drift import ask_drift, sweep_ladder
from mue_check.rules import Knob
from mue_check.study.folder import Study


def check_drift(study: Study, case: TargetCase, knob: Knob, expect: Expect) -> None:
    """The optimum of a value does not drift. Skipped on a corpus where it has no sharp optimum."""
    if not study.task(sweep_ladder(case.ladder, knob)).can_sweep(knob):
        pytest.skip(f"{knob} has no sharp optimum on {study.corpus_name} at any known setting (docs/choices.md)")
    expect(ask_drift(study, case.ladder, case.target, knob=knob))


@pytest.mark.axis("width", ladder="width", targets=1, not_in=("smoke",))
def test_width_weight_decay(study: Study, target_case: TargetCase, expect: Expect) -> None:
    """Weight decay lies between two published forms, which differ by rho_d."""
    check_drift(study, target_case, "weight_decay", expect)


@pytest.mark.axis("width", ladder="width", targets=1, not_in=("smoke", "cpu"))
def test_width_init_std(study: Study, target_case: TargetCase, expect: Expect) -> None:
    """The embeddings' init std does not drift.

    The global init std mixes the embeddings' optimum with the feed-forward's. The latter rises with the number of
    neurons, at one width too (docs/choices.md).
    """
    check_drift(study, target_case, "init_std:embedding", expect)


@pytest.mark.axis("activated_experts", targets=1, not_in=("smoke",))
@pytest.mark.parametrize("knob", ["weight_decay", "init_std"])
def test_activated_experts(study: Study, target_case: TargetCase, knob: Knob, expect: Expect) -> None:
    """The optimum of the dense model is also that of the mixture."""
    check_drift(study, target_case, knob, expect)
