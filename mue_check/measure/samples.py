"""Images and clips that trained diffusion models generate."""

from mue_check.data import Data, require_images
from mue_check.measure.measurement import Measurement, Passes, Row, by_columns
from mue_check.measure.stacks import stack_of
from mue_check.models.generate import generate
from mue_check.records import Cell, Columns

SAMPLES, EULER_STEPS = 8, 32
"""How many each run generates, all runs from the same noise, and in how many steps."""


def measure_samples(cell: Cell, data: Data) -> Columns:
    """Columns seed, value, sample, frame, height, pixels: gray values from 00 to ff, row by row.

    00 and ff are the darkest and the brightest value in the training data.
    """
    images = require_images(data)
    stack, values, seeds = stack_of(cell, data)
    stack.advance(cell.train.steps)
    labels = [sample % max(images.classes, 1) for sample in range(SAMPLES)]
    low, high = (float(end) * images.std + images.mean for end in (images.train.min(), images.train.max()))
    made = generate(stack, labels, steps=EULER_STEPS, seed=0)
    gray = ((made.mean(-1) - low) / (high - low) * 255).round().clamp(0, 255).to("cpu").byte().numpy()
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


def _passes(cell: Cell) -> Passes:
    return Passes(steps=cell.train.steps, probes=EULER_STEPS * SAMPLES // 16)


SAMPLED = Measurement(measure=measure_samples, passes=_passes)
