"""The sigma_0 laboratory: how gradient noise depends on the load of experts, and what an uneven load costs.

Laws: content-blind routing gives gamma = 1/2; the shift of sigma_0 under an uneven load is bounded; the drift budget
holds for loads to which it was not fitted. Everything else is a finding that the budget is calibrated with.
"""

import pytest

from mue_check.pytest_plugin import Expect
from mue_check.questions.case import Case, TargetCase
from mue_check.sigma0.calibration import read_calibration
from mue_check.sigma0.forecast import ask_forecast
from mue_check.sigma0.gamma import ask_gamma
from mue_check.sigma0.shift import ask_shift, ask_sigma0_drift
from mue_check.study.folder import Study

pytestmark = pytest.mark.axis("sigma0")


def test_sampling(study: Study, switched_case: Case, expect: Expect) -> None:
    """With weights trained under an even load and measured under uneven ones, content-blind routing has gamma 1/2;
    otherwise the estimator is wrong. For learned routing gamma is a finding."""
    expect(ask_gamma(study, switched_case.ladder, switched=True))


@pytest.mark.axis("sigma0", not_in=("smoke", "cpu"))
def test_gamma(study: Study, noise_case: Case, expect: Expect) -> None:
    """Gamma of every matrix, with weights that were trained under each load."""
    expect(ask_gamma(study, noise_case.ladder))


def test_shift(study: Study, shift_case: TargetCase, expect: Expect) -> None:
    """The shift of sigma_0, which is bounded for learned routing under an uneven load."""
    expect(ask_shift(study, shift_case.ladder, shift_case.target))


def test_drift(study: Study, load_case: TargetCase, expect: Expect) -> None:
    """The drift of the optimum under the same loads."""
    expect(ask_sigma0_drift(study, load_case.ladder, load_case.target))


def test_forecast(study: Study, heldout_load_case: TargetCase, expect: Expect) -> None:
    """The drift under a held-out load lies in the interval that `mue_check budget` predicts."""
    expect(ask_forecast(study, heldout_load_case.ladder, heldout_load_case.target, read_calibration()))


def test_causal_probe(study: Study, scaled_load_case: TargetCase, expect: Expect) -> None:
    """Each expert's update scaled with its load: does the optimum follow?"""
    expect(ask_sigma0_drift(study, scaled_load_case.ladder, scaled_load_case.target))
