"""Capacity: more experts of which the same number is active."""

import pytest

from mue_check.suite.questions import test_early_curve, test_scales, test_transfer

pytestmark = pytest.mark.axis("capacity", corpora=1)
