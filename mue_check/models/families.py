"""The families of models, by the type of their specification."""

from typing import Any

import torch

from mue_check.data import Data, require_tokens
from mue_check.flops import activation_numbers, parameter_numbers, training_flop
from mue_check.models.family import Amounts, Family
from mue_check.models.language_model import LanguageModel
from mue_check.models.token_examples import TokenExamples
from mue_check.rules import Prescription
from mue_check.spec import ModelSpec, TrainSpec


def _language_model(spec: ModelSpec, prescription: Prescription, train: TrainSpec, data: Data) -> LanguageModel:
    return LanguageModel(spec, prescription, vocab=require_tokens(data).vocab, context=train.context)


def _token_examples(train: TrainSpec, data: Data, runs: int, device: torch.device) -> TokenExamples:
    return TokenExamples(train, require_tokens(data), runs, device)


def _amounts(spec: ModelSpec, train: TrainSpec, data: Data, met: float) -> Amounts:
    sizes = {"context": train.context, "vocab": require_tokens(data).vocab}
    return Amounts(
        flop=training_flop(spec, **sizes, met=met),
        activations=activation_numbers(spec, **sizes, met=met),
        parameters=parameter_numbers(spec, **sizes),
    )


def _heldout(train: TrainSpec, data: Data) -> int:
    return len(require_tokens(data).heldout_windows(train.context))


LANGUAGE = Family(spec=ModelSpec, model=_language_model, examples=_token_examples, amounts=_amounts, heldout=_heldout)
FAMILIES: tuple[Family[Any], ...] = (LANGUAGE,)


def family_of(spec: ModelSpec) -> Family[Any]:
    """The family of a specification."""
    return next(family for family in FAMILIES if family.spec is type(spec))
