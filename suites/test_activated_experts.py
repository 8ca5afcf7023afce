"""Activated experts: values tuned on the dense model hold when a of N experts are active (Bridges I and II)."""

import pytest

from mue_check.suite.questions import test_early_curve, test_scales, test_transfer

pytestmark = pytest.mark.axis("activated_experts")
