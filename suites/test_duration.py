"""Duration: with more steps at a fixed batch the rule is approximate and leaves a stated residual."""

import pytest

from mue_check.suite.questions import test_transfer

pytestmark = pytest.mark.axis("duration", corpora=1)
