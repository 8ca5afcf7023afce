"""The families of models, by the type of their specification."""

from typing import Any

import torch

from mue_check.data import Data, require_images, require_tokens
from mue_check.errors import DataError
from mue_check.flops import Ends, activation_numbers, diffusion_ends, language_ends, parameter_numbers, training_flop
from mue_check.models.diffusion import TIME_FEATURES, DiffusionModel
from mue_check.models.family import Amounts, Family
from mue_check.models.image_examples import ImageExamples
from mue_check.models.language_model import LanguageModel
from mue_check.models.patches import Grid, grid_of
from mue_check.models.token_examples import TokenExamples
from mue_check.rules import Prescription
from mue_check.spec import DiffusionSpec, ModelSpec, TrainSpec


def _language_model(spec: ModelSpec, prescription: Prescription, train: TrainSpec, data: Data) -> LanguageModel:
    return LanguageModel(spec, prescription, vocab=require_tokens(data).vocab, context=train.context)


def _token_examples(spec: ModelSpec, train: TrainSpec, data: Data, runs: int, device: torch.device) -> TokenExamples:
    return TokenExamples(train, require_tokens(data), runs, device)


def _language_amounts(spec: ModelSpec, train: TrainSpec, data: Data, met: float) -> Amounts:
    ends = language_ends(spec, context=train.context, vocab=require_tokens(data).vocab)
    return _amounts(spec, ends, train, met)


def _amounts(spec: ModelSpec, ends: Ends, train: TrainSpec, met: float) -> Amounts:
    return Amounts(
        flop=training_flop(spec, ends, context=train.context, met=met),
        activations=activation_numbers(spec, ends, context=train.context, met=met),
        parameters=parameter_numbers(spec, ends),
    )


def _heldout_windows(train: TrainSpec, data: Data) -> int:
    return len(require_tokens(data).heldout_windows(train.context))


LANGUAGE = Family(
    spec=ModelSpec,
    model=_language_model,
    examples=_token_examples,
    amounts=_language_amounts,
    heldout=_heldout_windows,
)


def _grid(spec: DiffusionSpec, train: TrainSpec, data: Data) -> Grid:
    """How the data are cut. DataError unless an example has as many patches as the training says."""
    grid = grid_of(spec, require_images(data))
    if grid.tokens != train.context:
        raise DataError(
            f"corpus {data.name!r} has {grid.tokens} patches in an example for {spec}, and the training says "
            f"context={train.context}: set it to {grid.tokens}"
        )
    return grid


def _diffusion_model(spec: DiffusionSpec, prescription: Prescription, train: TrainSpec, data: Data) -> DiffusionModel:
    grid = _grid(spec, train, data)
    return DiffusionModel(spec, prescription, grid=grid, classes=require_images(data).classes)


def _image_examples(
    spec: DiffusionSpec, train: TrainSpec, data: Data, runs: int, device: torch.device
) -> ImageExamples:
    return ImageExamples(spec, train, require_images(data), runs, device)


def _diffusion_amounts(spec: DiffusionSpec, train: TrainSpec, data: Data, met: float) -> Amounts:
    grid = _grid(spec, train, data)
    classes = require_images(data).classes if spec.labels else 0
    ends = diffusion_ends(spec, tokens=grid.tokens, numbers=grid.numbers, features=TIME_FEATURES, classes=classes)
    return _amounts(spec, ends, train, met)


DIFFUSION = Family(
    spec=DiffusionSpec,
    model=_diffusion_model,
    examples=_image_examples,
    amounts=_diffusion_amounts,
    heldout=lambda train, data: len(require_images(data).heldout),
)
FAMILIES: tuple[Family[Any, Any], ...] = (LANGUAGE, DIFFUSION)


def family_of(spec: ModelSpec) -> Family[Any, Any]:
    """The family of a specification."""
    return next(family for family in FAMILIES if family.spec is type(spec))
