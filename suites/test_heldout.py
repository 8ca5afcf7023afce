"""Held out: one composite target that changes everything at once, the sweep before you trust it (--heldout SPEC)."""

import pytest

from mue_check.suite.questions import test_early_curve, test_scales, test_transfer

pytestmark = pytest.mark.axis("heldout", corpora=1)
