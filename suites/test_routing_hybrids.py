"""Routing hybrids: groups with global or per-group normalization, and groups with a shared expert."""

import pytest

from mue_check.suite.questions import test_early_curve, test_scales, test_transfer

pytestmark = pytest.mark.axis("routing_hybrids", corpora=1)
