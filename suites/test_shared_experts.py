"""Shared experts: one A over the total active width, R on the routed branch alone."""

import pytest

from mue_check.suite.questions import test_early_curve, test_scales, test_transfer

pytestmark = pytest.mark.axis("shared_experts", corpora=1)
