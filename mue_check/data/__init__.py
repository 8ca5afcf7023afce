"""Data for the reference models, by name. All data have a held-out part."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from mue_check.data.corpus import Corpus
from mue_check.data.docstrings import docstring_corpus
from mue_check.data.markov import markov_corpus
from mue_check.data.memory import memory_corpus
from mue_check.data.protocol import Data
from mue_check.data.token_file import token_file_corpus
from mue_check.errors import DataError

CORPORA: dict[str, Callable[[], Data]] = {"markov": markov_corpus, "docstrings": docstring_corpus}
SOURCES: dict[str, Callable[[int], Data]] = {"memory": memory_corpus}
"""Synthetic sources of a tier's own tasks, by the seed of their table: ``memory`` has table 0, ``memory:1`` another."""
_GIVEN: dict[str, Data] = {}


def give_data(name: str, data: Data) -> None:
    """Make ``load_data(name)`` return ``data``, in a process that does not have its file (a node of a cluster)."""
    _GIVEN[name] = data


def is_source(name: str) -> bool:
    """Whether it names a table of a synthetic source."""
    source, colon, table = name.partition(":")
    return source in SOURCES and (table.isdecimal() or not colon)


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
    if is_source(name):
        source, _, table = name.partition(":")
        return SOURCES[source](int(table or 0))
    if name.endswith(".bin"):
        return token_file_corpus(Path(name))
    raise DataError(f"unknown corpus {name!r}: allowed are {', '.join(CORPORA)}, or a token file FILE.bin")


__all__ = ["CORPORA", "Corpus", "Data", "give_data", "is_source", "load_corpus", "load_data", "require_tokens"]
