"""Batch: at fixed tokens the optimum stays. At fixed steps the rule is approximate, with a stated residual drift."""

import pytest

from mue_check.suite.questions import test_transfer

pytestmark = pytest.mark.axis("batch", corpora=1)
