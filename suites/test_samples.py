"""Samples: what a dense diffusion model and a mixture generate after equally many steps. No cases for language."""

import pytest

from mue_check.pytest_plugin import Expect, TargetCase
from mue_check.questions.samples import ask_samples
from mue_check.study.folder import Study


@pytest.mark.axis("activated_experts", targets=1)
def test_samples(study: Study, sample_case: TargetCase, expect: Expect) -> None:
    """Images generated from the same noise."""
    expect(ask_samples(study, sample_case.ladder, sample_case.target))
