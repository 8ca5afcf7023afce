"""A toy corpus: every second token repeats the one before, so that there is something to learn."""

import numpy as np
import pytest

from mue_check.data import Corpus


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    tokens = np.random.default_rng(0).integers(0, 16, 4000).astype(np.uint16)
    tokens[1::2] = tokens[::2]
    return Corpus(name="toy", train=tokens[:3000], heldout=tokens[3000:], vocab=16)
