"""Duration: for more steps at a fixed batch size the rule is approximate, with a stated residual drift."""

import pytest

from mue_check.suite.questions import test_transfer

pytestmark = pytest.mark.axis("duration", corpora=1)
