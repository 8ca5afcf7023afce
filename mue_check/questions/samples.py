"""Samples: what a dense diffusion model and its target generate after equally many steps. A finding for the eye."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mue_check.axes import Ladder, Rung
from mue_check.questions.case import Options, Scope, TargetCase, target_cases
from mue_check.questions.display import figure_title, heading, ladder_key
from mue_check.questions.question import Finding, JudgedKind
from mue_check.questions.summary import Summary
from mue_check.records import Store
from mue_check.report.palette import WIDTH, house_style, shorten
from mue_check.report.section import Part, Picture, Section
from mue_check.spec import DiffusionSpec
from mue_check.study.comparison import Comparison, Side, side_table
from mue_check.study.folder import Study

Pixels = NDArray[np.uint8]
_GAP = 1
"""Pixels between two frames."""


@dataclass(frozen=True, kw_only=True)
class SamplesFinding(Finding):
    """``images`` of each side, [sample, frame, height, width]. All sides start from the same noise."""

    images: tuple[Pixels, ...]


def sample_cases(options: Options, scope: Scope) -> list[TargetCase]:
    """The targets of the scope that are diffusion models."""
    return [c for c in target_cases(options, scope) if c.knob == "lr" and isinstance(c.target.model, DiffusionSpec)]


def ask_samples(study: Study, ladder: Ladder, target: Rung) -> SamplesFinding:
    """Samples of the reference and of a target that have trained equally long, on the longest task."""
    ladder = replace(ladder, regime="memory")
    question = study.question("samples", study.name("samples", ladder.name, target.label), ladder, 0.0, expected=None)
    rungs = (ladder.reference, target)
    return SAMPLES.answer(study, question, rungs, [study.arm(ladder, rung) for rung in rungs], replicates=1)


class SamplesKind(JudgedKind[SamplesFinding]):
    """A strip of samples: the reference above, the target below."""

    kind = "samples"
    measurement = "samples"
    label = "samples"
    cases: ClassVar = {"sample_case": sample_cases}

    def judge(self, store: Store, comparison: Comparison) -> SamplesFinding:
        """Read the images."""
        images = tuple(_images(side_table(store, side)) for side in comparison.sides)
        measured = f"{len(images[0])} samples of each model"
        return SamplesFinding(comparison=comparison, verdict=None, measured=measured, images=images)

    def sections(self, summary: Summary) -> Iterator[Section]:
        """A picture of each strip."""
        if found := summary.of(SamplesFinding):
            yield Section(
                part=Part.ANSWERS,
                anchor="samples",
                title="Samples",
                text="Generated from the same noise by models that have trained for as many steps at the same base "
                "values. So small a sample shows that the models have learned, and no more.",
                pictures=tuple(_picture(each) for each in found),
            )


SAMPLES = SamplesKind()


def _images(table: pd.DataFrame) -> Pixels:
    frames = table["frame"].max() + 1
    rows = table.sort_values(["sample", "frame"])
    pixels = [np.frombuffer(bytes.fromhex(text), dtype=np.uint8) for text in rows["pixels"]]
    return np.stack(pixels).reshape(-1, frames, int(rows["height"].iloc[0]), pixels[0].size // rows["height"].iloc[0])


def _picture(found: SamplesFinding) -> Picture:
    c = found.comparison
    key = (*ladder_key(c), found.side.label)
    return Picture.of(("samples", *key), figure_title("Samples", key), plot_samples, c.sides, found.images, heading(c))


def plot_samples(sides: Sequence[Side], images: Sequence[Pixels], title: str) -> Figure:
    """One strip for each side: samples from left to right, the frames of a clip next to each other."""
    strips = [_strip(each) for each in images]
    height, width = strips[0].shape
    with house_style():
        figure = Figure(figsize=(WIDTH, 0.9 + len(sides) * (WIDTH * height / width + 0.35)), layout="constrained")
        for at, (side, strip) in enumerate(zip(sides, strips, strict=True)):
            axes = figure.add_subplot(len(sides), 1, at + 1)
            axes.imshow(strip, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_axis_off()
            axes.set_title(shorten(f"{side.label}: {side.model}", 90), fontsize=9, loc="left")
        figure.suptitle(f"Samples along {title}", x=0.01, ha="left", fontsize=10.5)
    return figure


def _strip(images: Pixels) -> Pixels:
    """[height, width] of all frames side by side, with a wider gap between samples."""
    padded = np.pad(images, ((0, 0), (0, 0), (0, 0), (0, _GAP)), constant_values=255)
    clips = padded.transpose(0, 2, 1, 3).reshape(len(images), images.shape[2], -1)
    clips = np.pad(clips, ((0, 0), (0, 0), (0, 2 * _GAP)), constant_values=255)
    return np.asarray(clips.transpose(1, 0, 2).reshape(images.shape[2], -1))
