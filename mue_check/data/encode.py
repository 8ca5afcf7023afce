"""Encode tokens again with a small vocabulary: the most frequent ids keep a number of their own, by rank."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mue_check.data.token_file import WIDE, read_tokens
from mue_check.errors import DataError

LARGEST_VOCAB = 1 << 18
"""Ids of a file that is encoded again."""
_CHUNK = 1 << 24
"""Tokens that are in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """``tokens`` in all, ``kept`` of them with an id of their own, ids ``before`` (that occur) and ``after``."""

    tokens: int
    kept: int
    before: int
    after: int

    @property
    def share(self) -> float:
        """Of the tokens that keep an id of their own."""
        return self.kept / self.tokens


def encode_tokens(source: Path, target: Path, vocab: int) -> Encoded:
    """Write ``source`` with ids below ``vocab`` to ``target``: 0 is the most frequent, the last all others.

    Positions stay. If all ids fit, each keeps one of its own. Raises DataError for files that cannot be used.
    """
    if source.resolve() == target.resolve():
        raise DataError(f"{str(target)!r} is the file that is read: name another")
    if vocab - 1 > np.iinfo(np.uint16).max and not target.name.endswith(WIDE):
        raise DataError(f"ids up to {vocab - 1} do not fit into uint16: name the file *{WIDE}")
    tokens = read_tokens(source)
    counts = np.zeros(LARGEST_VOCAB, dtype=np.int64)
    for part in _parts(tokens):
        if (top := int(part.max())) >= LARGEST_VOCAB:
            raise DataError(f"token file {str(source)!r} holds token id {top}: ids must be below {LARGEST_VOCAB}")
        counts += np.bincount(part, minlength=LARGEST_VOCAB)
    order = np.argsort(-counts, kind="stable")
    before = int(np.count_nonzero(counts))
    own = before if before <= vocab else vocab - 1
    ids = np.full(LARGEST_VOCAB, min(own, vocab - 1), dtype="<u4" if target.name.endswith(WIDE) else "<u2")
    ids[order[:own]] = np.arange(own)
    try:
        with target.open("wb") as file:
            for part in _parts(tokens):
                ids[part].tofile(file)
    except OSError as error:
        raise DataError(f"{str(target)!r} cannot be written: {error.strerror}") from None
    kept = int(counts[order[:own]].sum())
    return Encoded(tokens=len(tokens), kept=kept, before=before, after=min(before, vocab))


def _parts(tokens: NDArray[np.uint16 | np.uint32]) -> Iterator[NDArray[np.uint16 | np.uint32]]:
    for start in range(0, len(tokens), _CHUNK):
        yield np.asarray(tokens[start : start + _CHUNK])
