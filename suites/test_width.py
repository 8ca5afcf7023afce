"""Width: base values tuned at d hold at 2d and 4d, for dense models and mixtures, and activations change equally."""

import pytest

from mue_check.suite.questions import test_early_curve, test_scales, test_transfer

pytestmark = pytest.mark.axis("width")
