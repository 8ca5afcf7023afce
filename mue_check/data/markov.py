"""Order-2 Markov sources with sharp optima within 200 steps and an exactly known minimal loss."""

import numpy as np
from numpy.typing import NDArray

from mue_check.data.corpus import Corpus

VOCAB, CLASSES, SHARPNESS = 32, 4, 1.2
TRAIN_TOKENS, HELDOUT_TOKENS = 400_000, 40_000


def transition_table(
    vocab: int = VOCAB, classes: int = CLASSES, sharpness: float = SHARPNESS, seed: int = 0
) -> NDArray[np.float64]:
    """P[a, b, next]: token k has class k mod ``classes``, and the classes of the last two tokens determine the next.

    The logits are a sum of a term per class of b, one per class of a, and one per pair of classes. With a table for all
    pairs of tokens, models stayed on the bigram plateau and the loss curve was flat (docs/choices.md).
    """
    rng = np.random.default_rng(seed)
    previous, before = (rng.normal(size=(classes, vocab)) for _ in range(2))
    both = rng.normal(size=(classes, classes, vocab))
    logits = sharpness * (0.7 * previous[None] + 0.7 * before[:, None] + both)
    of_token = np.arange(vocab) % classes
    weights = np.exp(logits - logits.max(-1, keepdims=True))[of_token][:, of_token]
    table: NDArray[np.float64] = weights / weights.sum(-1, keepdims=True)
    return table


def entropy_rate(table: NDArray[np.float64]) -> float:
    """Entropy of the stationary source in nats per token: the sum over pairs of pi(a, b) H(next | a, b)."""
    vocab = len(table)
    pairs = np.full((vocab, vocab), 1 / vocab**2)
    for _ in range(10_000):
        following = np.einsum("ab,abc->bc", pairs, table)
        if np.abs(following - pairs).sum() < 1e-13:
            break
        pairs = following
    return float(-np.einsum("ab,abc,abc->", pairs, table, np.log(np.maximum(table, 1e-300))))


def markov_corpus() -> Corpus:
    """The corpus that global optima are measured on: 4 classes."""
    return _corpus("markov", CLASSES, 0)


def pairs_corpus(table: int) -> Corpus:
    """The corpus for sweeps of one role group: 8 classes, with the table of that seed."""
    return _corpus(f"pairs:{table}" if table else "pairs", 8, table)


def _corpus(name: str, classes: int, table_seed: int) -> Corpus:
    """A corpus of 32 symbols, with its exact entropy."""
    table = transition_table(classes=classes, seed=table_seed)
    tokens = sample(table, TRAIN_TOKENS + HELDOUT_TOKENS, seed=table_seed + 1)
    return Corpus(
        name=name,
        train=tokens[:TRAIN_TOKENS],
        heldout=tokens[TRAIN_TOKENS:],
        vocab=VOCAB,
        entropy=entropy_rate(table),
    )


def sample(table: NDArray[np.float64], tokens: int, *, seed: int) -> NDArray[np.uint16]:
    """[tokens] uint16: many independent chains, concatenated."""
    chains, burn_in = 400, 50
    length = -(-tokens // chains)
    rng = np.random.default_rng(seed)
    cumulative = table.cumsum(-1)
    a, b = rng.integers(0, len(table), size=(2, chains))
    out = np.empty((chains, length), dtype=np.uint16)
    for i in range(-burn_in, length):
        c = (rng.random((chains, 1)) > cumulative[a, b]).sum(-1).clip(max=len(table) - 1)
        a, b = b, c
        if i >= 0:
            out[:, i] = c
    return out.reshape(-1)[:tokens]
