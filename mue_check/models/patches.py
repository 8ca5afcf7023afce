"""Images as tokens: patches of space, or of space and time."""

from typing import NamedTuple

import torch
from torch import Tensor

from mue_check.data import Images
from mue_check.errors import DataError
from mue_check.spec import DiffusionSpec


class Grid(NamedTuple):
    """Patches along time, height and width, and the numbers in one patch. Tokens are in that order."""

    frames: int
    rows: int
    columns: int
    numbers: int

    @property
    def tokens(self) -> int:
        """Patches of one example."""
        return self.frames * self.rows * self.columns


def grid_of(spec: DiffusionSpec, data: Images) -> Grid:
    """How a model cuts these data. Raises DataError if the patches do not fill a clip."""
    frames, height, width, channels = data.shape
    for size, patch, what in (
        (frames, spec.frames_per_patch, "frames"),
        (height, spec.patch, "rows of pixels"),
        (width, spec.patch, "columns of pixels"),
    ):
        if size % patch:
            raise DataError(f"corpus {data.name!r} has {size} {what}, which patches of {patch} do not fill ({spec})")
    return Grid(
        frames=frames // spec.frames_per_patch,
        rows=height // spec.patch,
        columns=width // spec.patch,
        numbers=spec.frames_per_patch * spec.patch**2 * channels,
    )


def to_patches(pixels: Tensor, grid: Grid, spec: DiffusionSpec) -> Tensor:
    """[N, T, P] of [N, frames, height, width, channels]."""
    split = (grid.frames, spec.frames_per_patch, grid.rows, spec.patch, grid.columns, spec.patch, -1)
    return pixels.reshape(len(pixels), *split).permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, grid.tokens, grid.numbers)


def from_patches(patches: Tensor, grid: Grid, spec: DiffusionSpec) -> Tensor:
    """[..., frames, height, width, channels] of [..., T, P]."""
    channels = grid.numbers // (spec.frames_per_patch * spec.patch**2)
    split = (grid.frames, grid.rows, grid.columns, spec.frames_per_patch, spec.patch, spec.patch, channels)
    pixels = patches.reshape(-1, *split).permute(0, 1, 4, 2, 5, 3, 6, 7)
    clip = (grid.frames * spec.frames_per_patch, grid.rows * spec.patch, grid.columns * spec.patch)
    return pixels.reshape(*patches.shape[:-2], *clip, -1)


def sinusoids(values: Tensor, width: int, longest: float) -> Tensor:
    """[..., width]: cosine and sine of each value at frequencies from 1 to 1 / ``longest`` (arXiv 1706.03762)."""
    half = width // 2
    frequencies = longest ** (-torch.arange(half, device=values.device) / half)
    angles = values.unsqueeze(-1) * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


def positions(grid: Grid, width: int, device: torch.device) -> Tensor:
    """[T, D]: fixed sines and cosines, an equal share of the width for each axis with more than one patch.

    The slowest takes the length of the axis. Published code has 10,000 for every length: on short axes most of these
    are constant, and what all tokens share then outweighs what they differ in.
    """
    token = torch.arange(grid.tokens, device=device)
    strides = (grid.rows * grid.columns, grid.columns, 1)
    sizes = (grid.frames, grid.rows, grid.columns)
    axes = [(token // stride % size, size) for stride, size in zip(strides, sizes, strict=True) if size > 1]
    share = width // (2 * max(1, len(axes))) * 2
    parts = [sinusoids(place, share, longest=size) for place, size in axes]
    rest = torch.zeros(grid.tokens, width - share * len(axes), device=device)
    return torch.cat([*parts, rest], -1)
