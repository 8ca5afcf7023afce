"""Corpora by name: what the reference models are trained on, always with a held-out part."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from mue_check.data.corpus import Corpus
from mue_check.data.docstrings import docstring_corpus
from mue_check.data.markov import markov_corpus
from mue_check.data.token_file import token_file_corpus
from mue_check.errors import DataError

CORPORA: dict[str, Callable[[], Corpus]] = {"markov": markov_corpus, "docstrings": docstring_corpus}
_GIVEN: dict[str, Corpus] = {}


def give_corpus(name: str, corpus: Corpus) -> None:
    """Have ``load_corpus(name)`` return this one, in a process that lacks its file (a node of a cluster)."""
    _GIVEN[name] = corpus


def load_corpus(name: str) -> Corpus:
    """The built-in corpus of that name, or the token file at that path (``.bin``). Raises DataError."""
    return _GIVEN[name] if name in _GIVEN else _load(name)


@cache
def _load(name: str) -> Corpus:
    if name in CORPORA:
        return CORPORA[name]()
    if name.endswith(".bin"):
        return token_file_corpus(Path(name))
    raise DataError(f"unknown corpus {name!r}: allowed are {', '.join(CORPORA)}, or a token file FILE.bin")


__all__ = ["CORPORA", "Corpus", "give_corpus", "load_corpus"]
