"""Shared experts: A follows the total active width, and R applies to the routed experts only."""

import pytest

from mue_check.suite.questions import test_early_curve, test_scales, test_transfer

pytestmark = pytest.mark.axis("shared_experts", corpora=1)
