"""A corpus: tokens to train on, held-out tokens, and the size of the vocabulary."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mue_check.errors import DataError

HELDOUT_WINDOWS = 128
"""The usual number of held-out sequences in a loss. All runs use the same ones, so their noise cancels between paired
runs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """Token streams as 1-D integer arrays, and the number of held-out ``windows`` in a loss.

    ``entropy`` is that of the source in nats per token, if known.
    """

    name: str
    train: NDArray[np.uint16 | np.uint32] = field(repr=False)
    heldout: NDArray[np.uint16 | np.uint32] = field(repr=False)
    vocab: int
    entropy: float | None = None
    windows: int = HELDOUT_WINDOWS

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all tokens, and of the number of held-out sequences where it is not the usual one."""
        windows = f",{self.windows}" if self.windows != HELDOUT_WINDOWS else ""
        digest = hashlib.sha256(f"{self.vocab}{windows}".encode())
        for part in (self.train, self.heldout):
            digest.update(np.ascontiguousarray(part, dtype=np.uint32).tobytes())
        return digest.hexdigest()[:16]

    def require_context(self, context: int) -> None:
        """Raise DataError if the corpus is too short for sequences of that context."""
        for part, tokens, windows in (("train", self.train, 64), ("held-out", self.heldout, 8)):
            needed = windows * (context + 1)
            if len(tokens) < needed:
                raise DataError(
                    f"corpus {self.name!r}: its {part} part has {len(tokens)} tokens, "
                    f"and a context of {context} needs at least {needed}"
                )

    def in_memory(self) -> "Corpus":
        """A copy with the tokens in memory, if they are a memory-mapped file."""
        return replace(self, train=np.asarray(self.train), heldout=np.asarray(self.heldout))

    def heldout_windows(self, context: int) -> NDArray[np.int64]:
        """[W, context + 1]: at most ``windows`` held-out sequences, evenly spaced and without overlap."""
        available = len(self.heldout) // (context + 1)
        chosen = np.linspace(0, available - 1, min(available, self.windows)).astype(int)
        rows = self.heldout[: available * (context + 1)].reshape(available, context + 1)
        return np.asarray(rows[chosen], dtype=np.int64)
