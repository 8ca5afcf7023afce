"""One thread, and a toy corpus: every second token repeats the one before, so that there is something to learn."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mue_check.data import Corpus


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    tokens = np.random.default_rng(0).integers(0, 16, 4000).astype(np.uint16)
    tokens[1::2] = tokens[::2]
    return Corpus(name="toy", train=tokens[:3000], heldout=tokens[3000:], vocab=16)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
