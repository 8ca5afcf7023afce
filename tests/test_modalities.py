"""Each modality: its tasks at every tier, its models on every ladder, and the options that select it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mue_check.catalog import TIERS, get_tier, summarize, write_report
from mue_check.data import Data, give_data, load_data
from mue_check.errors import DataError
from mue_check.measure.samples import euler
from mue_check.modalities import LANGUAGE, MODALITIES, get_modality
from mue_check.models.image_examples import Noised
from mue_check.mutants.rules import MUTANTS, is_possible
from mue_check.questions.display import in_unit_of
from mue_check.questions.samples import ask_samples
from mue_check.rules import RULES, get_rule
from mue_check.spec import DiffusionSpec, Scenario, TrainSpec
from mue_check.study.folder import Study
from tests.images import made_up_images

IMAGES = [name for name in MODALITIES if name != LANGUAGE]
OF_DIFFUSION = {"conditioning_lr_unscaled", "patch_embedding_as_hidden", "label_table_as_hidden"}


def test_language_is_the_tier_itself() -> None:
    assert all(get_tier(name, LANGUAGE) is tier for name, tier in TIERS.items())


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("modality", IMAGES)
def test_every_ladder_has_diffusion_models_and_a_task(modality: str, tier: str) -> None:
    made = get_tier(tier, modality)
    for axis in made.axes:
        for question in ("drift", "scales", "speed", "tune_once", "noise"):
            for ladder in made.ladders(axis, question):
                task = made.task("mine.npy", ladder.regime)
                assert task is made.task(modality, ladder.regime)
                assert all(type(rung.model) is DiffusionSpec for rung in ladder.rungs)
                scenarios = [Scenario.of(rung.model, rung.train(task.train)) for rung in ladder.rungs]
                for rule in RULES:
                    for scenario in scenarios:
                        get_rule(rule).prescribe(scenarios[0], scenario).values(task.base)


@pytest.mark.parametrize(("modality", "data"), [(LANGUAGE, made_up_images()), ("video", load_data("markov"))])
def test_data_of_another_modality_are_refused(modality: str, data: Data) -> None:
    with pytest.raises(DataError, match="needs them"):
        get_modality(modality).require(data)


def study(root: Path, modality: str) -> Study:
    tier = get_tier("smoke", modality)
    made = Study(
        root=root,
        tier=tier,
        corpus=tier.corpora[0],
        rule=get_rule("complete_mue"),
        tolerance=0.5,
        command="pytest",
    )
    made.store.prepare()
    return made


def test_mutants_that_a_modality_cannot_have_are_left_out(tmp_path: Path) -> None:
    def possible(modality: str) -> set[str]:
        return {mutant.name for mutant in MUTANTS if is_possible(study(tmp_path, modality), mutant)}

    every = {mutant.name for mutant in MUTANTS}
    assert possible(LANGUAGE) == every - OF_DIFFUSION
    assert possible("image_low") == every


class Straight:
    """A stack whose velocity leads from any point to its target in the time that is left."""

    device, runs = torch.device("cpu"), 2

    def __init__(self, target: torch.Tensor) -> None:
        self.target = target

    def probe(self, tap: Any, inputs: Noised) -> None:
        tap("velocity", ((inputs.noisy - self.target) / inputs.time[..., None, None]).flatten(1, 2))


def test_euler_steps_end_where_the_velocity_leads() -> None:
    target = torch.randn(2, 3, 4, 5)
    found = euler(Straight(target), torch.randn(3, 4, 5), torch.arange(3))  # type: ignore[arg-type]
    assert torch.allclose(found, target, atol=1e-5)


def test_samples_are_judged_from_their_records(tmp_path: Path) -> None:
    give_data("waves", made_up_images(frames=2, edge=6))
    train = TrainSpec(steps=2, batch=4, context=8)
    asked = study(tmp_path, "keyframe")
    task = replace(asked.tier.task("keyframe", "memory"), train=train)
    asked = replace(asked, corpus="waves", tier=replace(asked.tier, tasks={("keyframe", "memory"): task}))
    ladder = asked.tier.ladder("activated_experts")
    assert ladder
    found = ask_samples(asked, ladder, ladder.targets[0])
    assert [images.shape for images in found.images] == [(8, 2, 6, 6)] * 2
    assert not np.array_equal(*found.images)
    page = write_report(tmp_path, summarize(tmp_path)).read_text()
    assert "Samples along" in page


def asked_of(*models: str) -> list[Any]:
    return [SimpleNamespace(sides=[SimpleNamespace(model=model)], loss_unit="") for model in models]


@pytest.mark.parametrize(
    ("models", "text"),
    [
        (("d=32,L=2,H=32",), "0.1 nats per token"),
        (("d=32,L=2,H=32,patch=2",), "0.1 MSE"),
        (("d=32,L=2,H=32", "d=32,L=2,H=32,patch=2"), "0.1 nats or MSE"),
    ],
)
def test_a_loss_has_the_unit_of_its_models(models: tuple[str, ...], text: str) -> None:
    assert in_unit_of(asked_of(*models), "0.1 nats per token") == text
