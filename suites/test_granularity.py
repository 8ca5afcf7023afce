"""Granularity: finer experts at the same density and active width."""

import pytest

from mue_check.suite.questions import test_early_curve, test_scales, test_transfer

pytestmark = pytest.mark.axis("granularity", corpora=1)
