"""Bridges: dense to Dense MoE (I), Dense MoE to sparse (II), and their composition compared with the direct route.

Both routes end at the same cells, so they agree if their dense models do.
"""

import pytest

from mue_check.suite.questions import test_scales, test_transfer

pytestmark = pytest.mark.axis("bridges", corpora=1)
