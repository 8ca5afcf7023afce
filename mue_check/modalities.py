"""Modalities: which data a study is about, what kind of model learns them, and how the reference trains on them.

Ladders, sizes and questions are the tier's own: one rule, and on each modality its own numbers (docs/modalities.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial

from mue_check.axes import BY_GROUP_OF_DIFFUSION, Ladder, Regime, Sizes
from mue_check.data import Data, require_images, require_tokens
from mue_check.errors import SpecError, unknown
from mue_check.rules import HyperParameters
from mue_check.spec import DiffusionSpec, ModelSpec, TrainSpec
from mue_check.tiers import Task, Tier


@dataclass(frozen=True, kw_only=True)
class Modality:
    """``require`` raises DataError for data that the models cannot learn, such as those of another modality.

    The other fields are those of a tier; without them, the tier's own remain. ``tasks`` are by device. ``ladders``
    replace those of their names.
    """

    require: Callable[[Data], object]
    corpora: tuple[str, ...] = ()
    kind: Callable[[ModelSpec], ModelSpec] | None = None
    tasks: Mapping[str, Mapping[tuple[str, Regime], Task]] = field(default_factory=dict)
    ladders: Mapping[str, Callable[[Sizes], Ladder]] = field(default_factory=dict)

    def of(self, tier: Tier) -> Tier:
        """The tier with this modality's data, models and tasks."""
        if not self.corpora:
            return tier
        return replace(
            tier,
            corpora=self.corpora,
            other_corpora=self.corpora[0],
            kind=self.kind,
            tasks=self.tasks[tier.device],
            axes={axis: partial(self._replaced, make) for axis, make in tier.axes.items()},
        )

    def _replaced(self, make: Callable[[Sizes], tuple[Ladder, ...]], sizes: Sizes) -> tuple[Ladder, ...]:
        return tuple(self.ladders[x.name](sizes) if x.name in self.ladders else x for x in make(sizes))


def _diffusion(model: ModelSpec, patch: int, frames_per_patch: int) -> DiffusionSpec:
    """A diffusion transformer of the same size."""
    size = {each.name: getattr(model, each.name) for each in fields(ModelSpec)}
    return DiffusionSpec(**size, patch=patch, frames_per_patch=frames_per_patch)


EPS = 1e-12
"""Gates make the gradients of blocks small at first, so the usual 1e-8 would count (docs/choices.md)."""
_BASE = HyperParameters(lr=2.0**-5, weight_decay=0.1, init_std=0.1, eps=EPS, beta1=0.9, beta2=0.95)
# as in tiers: from d = 32 to 128 by the rule
_GPU_BASE = replace(_BASE, lr=2.0**-7, init_std=0.05)


def _image_modality(corpus: str, *, patch: int, tokens: int, log2_lr: float, frames_per_patch: int = 1) -> Modality:
    """Diffusion models on a corpus whose examples are cut into that many ``tokens``; docs/choices.md has the tasks."""

    def task(base: HyperParameters, octaves: float, steps: int, batch: int) -> Task:
        train = TrainSpec(steps=steps, batch=batch, context=tokens, warmup=steps // 10)
        lr = base.lr * 2.0 ** (log2_lr + 5 + octaves)
        early = replace(base, lr=lr * 2.0**-1.5, init_std=base.init_std / 5)
        return Task(train=train, base=replace(base, lr=lr), half_width=0.5, early=early, grid_step=0.5)

    def tasks(base: HyperParameters) -> Mapping[tuple[str, Regime], Task]:
        return {
            (corpus, "sharp"): task(base, 0, 80, 64),
            (corpus, "noise"): task(base, -0.5, 200, 8),
            (corpus, "pairs"): task(base, 0, 80, 64),
            (corpus, "memory"): task(base, -1, 300, 64),
        }

    return Modality(
        require=require_images,
        corpora=(corpus,),
        kind=partial(_diffusion, patch=patch, frames_per_patch=frames_per_patch),
        tasks={"cpu": tasks(_BASE), "cuda": tasks(_GPU_BASE)},
        ladders=BY_GROUP_OF_DIFFUSION,
    )


LANGUAGE = "language"
MODALITIES: Mapping[str, Modality] = {
    LANGUAGE: Modality(require=require_tokens),
    "image_low": _image_modality("image_low", patch=2, tokens=16, log2_lr=-5),
    "image_high": _image_modality("image_high", patch=4, tokens=49, log2_lr=-4.5),
    "keyframe": _image_modality("keyframe", patch=3, tokens=32, log2_lr=-4.25),
    "video": _image_modality("video", patch=3, tokens=32, log2_lr=-4.25, frames_per_patch=3),
}


def get_modality(name: str) -> Modality:
    """The modality of that name. Raises SpecError, which names the known ones."""
    try:
        return MODALITIES[name]
    except KeyError:
        raise SpecError(unknown("modality", name, MODALITIES)) from None
