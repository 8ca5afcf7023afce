"""A source to memorize, on which experts help: every pair of symbols has its own distribution of the next one."""

import numpy as np
from numpy.typing import NDArray

from mue_check.data.corpus import Corpus
from mue_check.data.markov import entropy_rate, sample

VOCAB, SHARPNESS = 48, 6.0
TRAIN_TOKENS, HELDOUT_TOKENS, HELDOUT_WINDOWS = 400_000, 40_000, 8192


def memory_corpus(table: int = 0) -> Corpus:
    """The corpus of one table of transitions: ``table`` is its seed.

    P(c | a, b) = softmax(SHARPNESS z[a, b, c] - ln(c + 1)) with z normal: nothing is shared between pairs, so a model
    has to store them all, and some symbols are more frequent than others.
    """
    logits = SHARPNESS * np.random.default_rng(table).normal(size=(VOCAB,) * 3) - np.log(np.arange(VOCAB) + 1)
    weights: NDArray[np.float64] = np.exp(logits - logits.max(-1, keepdims=True))
    chances = weights / weights.sum(-1, keepdims=True)
    tokens = sample(chances, TRAIN_TOKENS + HELDOUT_TOKENS, seed=table + 1)
    return Corpus(
        name=f"memory:{table}" if table else "memory",
        train=tokens[:TRAIN_TOKENS],
        heldout=tokens[TRAIN_TOKENS:],
        vocab=VOCAB,
        entropy=entropy_rate(chances),
        windows=HELDOUT_WINDOWS,
    )
