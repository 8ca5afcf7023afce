"""Images and clips that trained diffusion models generate."""

import torch
from torch import Tensor

from mue_check.data import Data, require_images
from mue_check.measure.measurement import Measurement, Passes, Row, by_columns
from mue_check.measure.stacks import stack_of
from mue_check.models.image_examples import Noised
from mue_check.models.patches import from_patches, grid_of
from mue_check.records import Cell, Columns
from mue_check.spec import DiffusionSpec
from mue_check.training import Stack

SAMPLES, EULER_STEPS = 8, 32
"""How many each run generates, all runs from the same noise, and in how many steps."""


def measure_samples(cell: Cell, data: Data) -> Columns:
    """Columns seed, value, sample, frame, height, pixels: gray values from 00 to ff, row by row.

    00 and ff are the darkest and the brightest value in the training data.
    """
    images, spec = require_images(data), cell.model
    assert isinstance(spec, DiffusionSpec)
    stack, values, seeds = stack_of(cell, data)
    stack.advance(cell.train.steps)
    labels = torch.arange(SAMPLES) % max(images.classes, 1)
    grid = grid_of(spec, images)
    noise = torch.randn(SAMPLES, grid.tokens, grid.numbers, generator=torch.Generator().manual_seed(0))
    made = from_patches(euler(stack, noise, labels), grid, spec)
    low, high = float(images.train.min()), float(images.train.max())
    gray = ((made.mean(-1) - low) / (high - low) * 255).round().clamp(0, 255).byte().cpu().numpy()
    rows: list[Row] = [
        {
            "seed": seed,
            "value": value,
            "sample": sample,
            "frame": at,
            "height": len(frame),
            "pixels": frame.tobytes().hex(),
        }
        for seed, value, run in zip(seeds, values, gray, strict=True)
        for sample, clip in enumerate(run)
        for at, frame in enumerate(clip)
    ]
    return by_columns(rows)


def euler(stack: Stack, noise_NTP: Tensor, label_N: Tensor) -> Tensor:
    """[R, N, T, P]: from noise along the predicted velocity to time 0, the same noise and labels for every run."""
    x = noise_NTP.to(stack.device).expand(stack.runs, -1, -1, -1)
    label = label_N.to(stack.device).expand(stack.runs, -1)
    for step in range(EULER_STEPS, 0, -1):
        time = torch.full(label.shape, step / EULER_STEPS, device=stack.device)
        seen: dict[str, Tensor] = {}
        # a point that is its own noise is at every time the same point
        stack.probe(seen.__setitem__, Noised(x, x, time, label))
        x = x - seen["velocity"].view_as(x) / EULER_STEPS
    return x


def _passes(cell: Cell) -> Passes:
    return Passes(steps=cell.train.steps, probes=EULER_STEPS * SAMPLES // 16)


SAMPLED = Measurement(measure=measure_samples, passes=_passes)
