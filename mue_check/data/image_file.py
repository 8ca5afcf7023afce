"""A user's images or clips: an array in a NumPy file."""

from pathlib import Path

import numpy as np

from mue_check.data.images import Images
from mue_check.errors import DataError

MAX_NUMBERS = 200_000_000
FEWEST = 64
_SHAPES = (
    "[N, height, width], [N, height, width, channels] with at most 4 channels, or [N, frames, height, width, channels]"
)


def image_file(path: Path) -> Images:
    """Read ``path`` and hold out a sixth of its examples. DataError if it is not such an array of numbers."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"image file {str(path)!r} cannot be read: {error}") from None
    if not isinstance(pixels, np.ndarray) or pixels.dtype.kind not in "fiub":
        raise DataError(f"image file {str(path)!r} holds no numbers")
    if pixels.ndim == 3:
        pixels = pixels[:, None, :, :, None]
    elif pixels.ndim == 4 and pixels.shape[-1] <= 4:
        pixels = pixels[:, None]
    if pixels.ndim != 5:
        raise DataError(f"image file {str(path)!r} has the shape {list(pixels.shape)}: must be {_SHAPES}")
    if len(pixels) < FEWEST or pixels.size > MAX_NUMBERS:
        raise DataError(
            f"image file {str(path)!r} has {len(pixels)} examples and {pixels.size} numbers: must be at least {FEWEST} "
            f"examples and at most {MAX_NUMBERS} numbers"
        )
    return Images.split(path.name, pixels)
