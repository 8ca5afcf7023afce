"""Bridges: dense to Dense MoE (I), Dense MoE to sparse (II), and their composition against the direct route.

Both routes end in the same cells, so that they agree when their dense models do.
"""

import pytest

from mue_check.suite.questions import test_scales, test_transfer

pytestmark = pytest.mark.axis("bridges", corpora=1)
