"""Depth: base values tuned at L blocks hold at 2L and 4L, with each branch scaled by 1/L (CompleteP, alpha = 1)."""

import pytest

from mue_check.suite.questions import test_early_curve, test_scales, test_transfer

pytestmark = pytest.mark.axis("depth", corpora=1)
