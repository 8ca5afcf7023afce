"""Batch: at fixed tokens the optimum stays; at fixed steps the rule is approximate and leaves a stated residual."""

import pytest

from mue_check.suite.questions import test_transfer

pytestmark = pytest.mark.axis("batch", corpora=1)
