"""Images and clips as arrays, standardized, with a held-out part."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mue_check.errors import DataError

HELDOUT_SHARE, MOST_HELDOUT = 1 / 6, 512


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Pixels [N, frames, height, width, channels] float32 and labels [N] int64; an image is a clip of one frame.

    Pixels are standardized: ``value * std + mean`` is the original. ``classes`` is 0 where there are no labels, which
    are then all 0.
    """

    name: str
    train: NDArray[np.float32] = field(repr=False)
    heldout: NDArray[np.float32] = field(repr=False)
    train_labels: NDArray[np.int64] = field(repr=False)
    heldout_labels: NDArray[np.int64] = field(repr=False)
    classes: int
    mean: float
    std: float

    @classmethod
    def split(cls, name: str, pixels: NDArray[np.generic], labels: NDArray[np.generic] | None = None) -> "Images":
        """Hold out a sixth of all examples, at most 512, which a fixed seed chooses. DataError if pixels are constant.

        ``pixels`` are [N, frames, height, width, channels].
        """
        count = len(pixels)
        known = np.zeros(count, dtype=np.int64) if labels is None else np.asarray(labels, dtype=np.int64)
        order = np.random.default_rng(0).permutation(count)
        cut = min(MOST_HELDOUT, int(count * HELDOUT_SHARE))
        heldout, train = order[:cut], order[cut:]
        values = np.asarray(pixels, dtype=np.float32)
        mean, std = float(values[train].mean(dtype=np.float64)), float(values[train].std(dtype=np.float64))
        if not (np.isfinite(std) and std > 0):
            raise DataError(f"corpus {name!r}: its pixels are constant or not finite")
        values = (values - np.float32(mean)) / np.float32(std)
        return cls(
            name=name,
            train=values[train],
            heldout=values[heldout],
            train_labels=known[train],
            heldout_labels=known[heldout],
            classes=0 if labels is None else int(known.max()) + 1,
            mean=mean,
            std=std,
        )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Frames, height, width and channels."""
        _, frames, height, width, channels = self.train.shape
        return frames, height, width, channels

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all pixels and labels."""
        digest = hashlib.sha256(f"{self.shape},{self.classes}".encode())
        for part in (self.train, self.heldout, self.train_labels, self.heldout_labels):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()[:16]

    def require_context(self, context: int) -> None:
        """Nothing to refuse: how many tokens an example has depends on a model's patches."""

    def in_memory(self) -> "Images":
        """The same: there are no files."""
        return self
