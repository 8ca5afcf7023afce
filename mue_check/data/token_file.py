"""A user's tokens: a flat binary file of uint16, as nanoGPT writes it, or of uint32 if its name ends in .u32.bin."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mue_check.data.corpus import Corpus
from mue_check.errors import DataError

HELDOUT_SHARE = 0.1
MAX_VOCAB = 4096
"""A reference model of width 32 cannot use more. Larger ids are an error."""
MAX_TOKENS = 20_000_000
WIDE = ".u32.bin"
_LOOK = 10_000
"""Tokens by which a file of uint32 with a name of uint16 is recognized."""


def token_file_corpus(path: Path) -> Corpus:
    """Read ``path`` and hold out its last tenth. Raises DataError if it is missing, cut off, or has too many ids."""
    tokens = read_tokens(path)[:MAX_TOKENS]
    vocab = int(tokens.max()) + 1
    if vocab > MAX_VOCAB:
        raise DataError(
            f"token file {str(path)!r} holds token id {vocab - 1}: ids must be below {MAX_VOCAB} "
            f"(small reference models): mue_check encode {path} --out small.bin"
        )
    split = len(tokens) - max(1, int(len(tokens) * HELDOUT_SHARE))
    return Corpus(name=path.name, train=tokens[:split], heldout=tokens[split:], vocab=vocab)


def read_tokens(path: Path) -> NDArray[np.uint16 | np.uint32]:
    """The tokens [T] of a file, mapped into memory. Raises DataError if it is missing, empty, cut off or misnamed."""
    dtype = np.dtype("<u4") if path.name.endswith(WIDE) else np.dtype("<u2")
    try:
        size = path.stat().st_size
        if size % dtype.itemsize:
            raise DataError(f"token file {str(path)!r} has {size} bytes, not a whole number of {dtype.name} tokens")
        if size == 0:
            raise DataError(f"token file {str(path)!r} is empty")
        tokens = np.memmap(path, dtype=dtype, mode="r")
    except OSError as error:
        raise DataError(f"token file {str(path)!r} cannot be read: {error.strerror}") from None
    start = tokens[:_LOOK]
    if dtype.itemsize == 2 and len(start) > 2 and start.any() and not start[1::2].any():
        raise DataError(f"token file {str(path)!r} looks like uint32: every second uint16 is 0. Name it *{WIDE}")
    return tokens
