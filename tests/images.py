"""Small made-up images and clips, for tests that need no package with pictures."""

import numpy as np

from mue_check.data import Images


def made_up_images(*, frames: int = 1, edge: int = 8, channels: int = 1, classes: int = 3, count: int = 60) -> Images:
    """Smooth waves whose direction follows the label, with noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, max(1, classes), count)
    t, y, x = np.meshgrid(np.arange(frames), np.arange(edge), np.arange(edge), indexing="ij")
    angle = labels[:, None, None, None] + 1.0
    wave = np.cos(np.cos(angle) * y + np.sin(angle) * x + t)[..., None]
    pixels = wave + 0.3 * rng.normal(size=(count, frames, edge, edge, channels))
    return Images.split("made_up", pixels, labels if classes else None)
