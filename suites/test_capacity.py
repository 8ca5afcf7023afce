"""Capacity: more experts, with the same number of them active."""

import pytest

from mue_check.suite.questions import test_early_curve, test_scales, test_transfer

pytestmark = pytest.mark.axis("capacity", corpora=1)
