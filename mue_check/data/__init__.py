"""Data for the reference models, by name. All data have a held-out part."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from mue_check.data.corpus import Corpus
from mue_check.data.docstrings import docstring_corpus
from mue_check.data.markov import markov_corpus
from mue_check.data.protocol import Data
from mue_check.data.token_file import token_file_corpus
from mue_check.errors import DataError

CORPORA: dict[str, Callable[[], Data]] = {
    "markov": partial(markov_corpus, "markov"),
    "pairs": partial(markov_corpus, "pairs", classes=8),
    "pairs_again": partial(markov_corpus, "pairs_again", classes=8, table_seed=1),
    "docstrings": docstring_corpus,
}
"""``pairs`` is for sweeps of one group of parameters; ``pairs_again`` confirms them on another table."""
_GIVEN: dict[str, Data] = {}


def give_data(name: str, data: Data) -> None:
    """Make ``load_data(name)`` return ``data``, in a process that does not have its file (a node of a cluster)."""
    _GIVEN[name] = data


def load_data(name: str) -> Data:
    """The built-in data of that name, or the token file at that path (``.bin``). Raises DataError."""
    return _GIVEN[name] if name in _GIVEN else _load(name)


def load_corpus(name: str) -> Corpus:
    """The corpus of that name. Raises DataError if it is not tokens."""
    return require_tokens(load_data(name))


def require_tokens(data: Data) -> Corpus:
    """``data`` as a corpus. Raises DataError if it is not tokens."""
    if not isinstance(data, Corpus):
        raise DataError(f"{data.name!r} has no tokens, and a language model needs them")
    return data


@cache
def _load(name: str) -> Data:
    if name in CORPORA:
        return CORPORA[name]()
    if name.endswith(".bin"):
        return token_file_corpus(Path(name))
    raise DataError(f"unknown corpus {name!r}: allowed are {', '.join(CORPORA)}, or a token file FILE.bin")


__all__ = ["CORPORA", "Corpus", "Data", "give_data", "load_corpus", "load_data", "require_tokens"]
