"""Clips of real digits that move: key frames, a few frames far apart, and video, more frames close together."""

import numpy as np
from numpy.typing import NDArray

from mue_check.data.images import Images
from mue_check.data.pictures import digits_8x8

CANVAS = 12
"""Edge of a frame in pixels. A digit has 8."""


def keyframe() -> Images:
    """Two frames of each clip, 4 time steps apart."""
    return _clips("keyframe", frames=2, apart=4)


def video() -> Images:
    """Six consecutive frames."""
    return _clips("video", frames=6, apart=1)


def _clips(name: str, *, frames: int, apart: int) -> Images:
    digits, labels = digits_8x8()
    count, size = digits.shape[:2]
    top_left = paths(count, np.arange(frames) * apart, CANVAS - size)
    clips = np.zeros((count, frames, CANVAS, CANVAS), dtype=np.float32)
    rows, columns = (top_left[..., axis, None] + np.arange(size) for axis in range(2))
    clip, frame = np.ogrid[:count, :frames]
    clips[clip[..., None, None], frame[..., None, None], rows[..., :, None], columns[..., None, :]] = digits[:, None]
    return Images.split(name, clips[..., None], labels)


def paths(count: int, times: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """[count, times, 2] positions from 0 to ``room``: straight at up to 1 pixel per step, reflected at the edges.

    Starts and velocities are drawn from a fixed seed.
    """
    rng = np.random.default_rng(0)
    start, velocity = rng.uniform(0, room, (count, 1, 2)), rng.uniform(-1, 1, (count, 1, 2))
    unfolded = (start + velocity * times[None, :, None]) % (2 * room)
    return np.asarray(np.rint(room - np.abs(unfolded - room)), dtype=np.int64)
