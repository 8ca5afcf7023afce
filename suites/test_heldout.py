"""Held out: a composite target that changes everything at once, such as your own model (--heldout SPEC)."""

import pytest

from mue_check.suite.questions import test_early_curve, test_scales, test_transfer

pytestmark = pytest.mark.axis("heldout", corpora=1)
