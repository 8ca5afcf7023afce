"""The bigram entropy of a corpus, which the blocks of a model must get below."""

import numpy as np

from mue_check.data import Corpus


def bigram_entropy(corpus: Corpus) -> float:
    """Loss in nats per token of the best model that sees only the last token."""
    pairs = np.zeros((corpus.vocab, corpus.vocab))
    np.add.at(pairs, (corpus.train[:-1].astype(np.int64), corpus.train[1:].astype(np.int64)), 1)
    following = pairs / np.maximum(pairs.sum(axis=1, keepdims=True), 1)
    return float(-(pairs / pairs.sum() * np.log(np.where(following > 0, following, 1.0))).sum())
