"""Modalities: which data a study is about, what kind of model learns them, and how the reference trains on them.

Ladders, sizes and questions are the tier's own: one rule, and on each modality its own numbers (docs/modalities.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import NamedTuple

from mue_check.axes import BY_GROUP, Ladder, Regime, Sizes, diffusion_by_group
from mue_check.data import Data, require_images, require_tokens
from mue_check.errors import SpecError, unknown
from mue_check.rules import HyperParameters
from mue_check.spec import DiffusionSpec, ModelSpec, TrainSpec
from mue_check.tiers import SMOKE, Task, Tier


@dataclass(frozen=True, kw_only=True)
class Modality:
    """``require`` raises DataError for data that the models cannot learn, such as those of another modality.

    The other fields are those of a tier; without them, the tier's own remain. ``tasks`` are by device. ``ladders``
    replace those of their names. ``sized`` changes the sizes of a tier.
    """

    require: Callable[[Data], object]
    corpora: tuple[str, ...] = ()
    kind: Callable[[ModelSpec], ModelSpec] | None = None
    tasks: Mapping[str, Mapping[tuple[str, Regime], Task]] = field(default_factory=dict)
    ladders: Callable[[Sizes], Mapping[str, Ladder]] = lambda sizes: {}
    sized: Callable[[Tier], Tier] = lambda tier: tier

    def of(self, tier: Tier) -> Tier:
        """The tier with this modality's data, models and tasks."""
        if not self.corpora:
            return tier
        return replace(
            self.sized(tier),
            corpora=self.corpora,
            other_corpora=self.corpora[0],
            kind=self.kind,
            tasks=self.tasks[tier.device],
            axes={axis: partial(self._replaced, make) for axis, make in tier.axes.items()},
        )

    def _replaced(self, make: Callable[[Sizes], tuple[Ladder, ...]], sizes: Sizes) -> tuple[Ladder, ...]:
        own = self.ladders(sizes)
        return tuple(own.get(ladder.name, ladder) for ladder in make(sizes))


def _diffusion(model: ModelSpec, patch: int, frames_per_patch: int) -> DiffusionSpec:
    """A diffusion transformer of the same size."""
    size = {each.name: getattr(model, each.name) for each in fields(ModelSpec)}
    return DiffusionSpec(**size, patch=patch, frames_per_patch=frames_per_patch)


def _fewer(tier: Tier) -> Tier:
    """A step costs several times one of language: tier cpu has fewer and smaller targets, to fit into 15 minutes."""
    if tier.name != "cpu":
        return tier
    sizes = replace(
        tier.sizes, depths=(4, 8), memory_experts=(8, 32), speed=("16e16a-h2", "32e2a-h16"), heldout="d=48,8e2a1s,h=12"
    )
    return replace(
        tier,
        sizes=sizes,
        scale_sizes=replace(SMOKE.scale_sizes, heldout=sizes.heldout),
        left_out=frozenset({"bridges_composed", f"bridge_2{BY_GROUP}", f"depth{BY_GROUP}"}),
    )


EPS = 1e-12
"""Gates make the gradients of blocks small at first, so the usual 1e-8 would count (docs/choices.md)."""
_BASE = HyperParameters(lr=2.0**-5, weight_decay=0.1, init_std=0.1, eps=EPS, beta1=0.9, beta2=0.95)
# as in tiers: from d = 32 to 128 by the rule
_GPU_BASE = replace(_BASE, lr=2.0**-7, init_std=0.05)


class _Setting(NamedTuple):
    """How the reference trains: ``log2_lr`` is where the search begins at d = 32."""

    steps: int
    batch: int
    log2_lr: float


def _few_images(log2_lr: float) -> Mapping[Regime, _Setting]:
    """Four images per step: gradient noise makes the valley steep, and the cliff stands far above it."""
    sharp = _Setting(100, 4, log2_lr)
    return {
        "sharp": sharp,
        "noise": _Setting(400, 2, log2_lr - 0.75),
        "pairs": sharp,
        "memory": _Setting(150, 64, log2_lr),
    }


def _image_modality(
    corpus: str, settings: Mapping[Regime, _Setting], *, patch: int, tokens: int, frames_per_patch: int = 1
) -> Modality:
    """Diffusion models on a corpus whose examples are cut into that many ``tokens``; docs/choices.md has the tasks."""

    def task(base: HyperParameters, setting: _Setting) -> Task:
        train = TrainSpec(steps=setting.steps, batch=setting.batch, context=tokens, warmup=setting.steps // 10)
        lr = base.lr * 2.0 ** (setting.log2_lr + 5)
        early = replace(base, lr=lr * 2.0**-1.5, init_std=base.init_std / 5)
        return Task(train=train, base=replace(base, lr=lr), half_width=0.5, early=early, grid_step=0.5)

    def tasks(base: HyperParameters) -> Mapping[tuple[str, Regime], Task]:
        return {(corpus, regime): task(base, setting) for regime, setting in settings.items()}

    return Modality(
        require=require_images,
        corpora=(corpus,),
        kind=partial(_diffusion, patch=patch, frames_per_patch=frames_per_patch),
        tasks={"cpu": tasks(_BASE), "cuda": tasks(_GPU_BASE)},
        ladders=diffusion_by_group,
        sized=_fewer,
    )


LANGUAGE = "language"
MODALITIES: Mapping[str, Modality] = {
    LANGUAGE: Modality(require=require_tokens),
    "image_low": _image_modality(
        "image_low",
        {
            "sharp": _Setting(80, 64, -5),
            "noise": _Setting(400, 2, -6),
            "pairs": _Setting(100, 8, -5.25),
            "memory": _Setting(150, 64, -6),
        },
        patch=2,
        tokens=16,
    ),
    "image_high": _image_modality("image_high", _few_images(-5), patch=4, tokens=49),
    "keyframe": _image_modality("keyframe", _few_images(-5.25), patch=3, tokens=32),
    "video": _image_modality("video", _few_images(-5.25), patch=3, tokens=32, frames_per_patch=3),
}


def get_modality(name: str) -> Modality:
    """The modality of that name. Raises SpecError, which names the known ones."""
    try:
        return MODALITIES[name]
    except KeyError:
        raise SpecError(unknown("modality", name, MODALITIES)) from None
