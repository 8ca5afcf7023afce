"""``mue_check model hf:CONFIG``: families of transformers without code."""

from pathlib import Path

import pytest

from mue_check import check_model
from mue_check.judge.verdict import Verdict
from mue_check.own_model import Plan, Study
from mue_check.own_model.candidate import ModelError, Recipe
from mue_check.own_model.library import find
from mue_check.own_model.transfer import ask_transfer
from tests.own_model.example import suspects

pytest.importorskip("transformers")
NORMALIZED = "hf:Qwen3MoeConfig,norm_topk_prob=true"


@pytest.mark.parametrize(
    ("name", "axis", "sizes"),
    [
        ("hf:MixtralConfig", "width", (64, 128, 256)),
        ("hf:GptOssConfig", "width", (64, 128, 256)),  # biases of experts
        ("hf:DeepseekV3Config", "width", (64, 128, 256)),  # projections by way of few numbers
        (NORMALIZED, "experts", (4, 8, 16)),
    ],
)
def test_a_family_fits_the_rule(name: str, axis: str, sizes: tuple[int, ...]) -> None:
    report = check_model(name, axis=axis, sizes=sizes)
    assert report.verdict is Verdict.PASS, str(report)


def test_a_wrong_rule_and_a_router_without_normalization_fail() -> None:
    named = suspects(check_model("hf:MixtralConfig", sizes=(64, 128), seeds=(4,), rule="standard"))
    assert "model.layers.*.self_attn.q_proj.weight" in named
    named = suspects(check_model("hf:Qwen3MoeConfig", axis="experts", sizes=(4, 8, 16), seeds=(4,)))
    assert named == ["model.layers.*.mlp.experts"]


def test_a_family_is_studied_as_any_model(tmp_path: Path) -> None:
    user = find(Recipe(name=NORMALIZED, axis="experts", base=4, rule="complete_mue", values=None))
    study = Study(root=tmp_path, plan=Plan(steps=2, held_out=1), lr=1e-3, ask=("tune_once",), seeds=(4, 4))
    (found,) = ask_transfer(user, "experts", (4, 8), study)
    assert found.comparison.rule == "hf-Qwen3MoeConfig-norm_topk_prob-true"
    assert len(list((tmp_path / "cells").iterdir())) == 8


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("hf:Qwen9Config", {}, "transformers has no configuration of that name"),
        ("hf:LlamaConfig", {}, "has no number of experts"),
        ("hf:MixtralConfig", {"axis": "heads"}, "unknown axis 'heads': allowed are width, experts"),
        ("hf:MixtralConfig", {"sizes": (24, 48)}, "width 24: must be a multiple of 16"),
        ("hf:MixtralConfig", {"sizes": ()}, "give --sizes"),
    ],
)
def test_what_cannot_be_built_is_one_clear_line(name: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(ModelError) as error:
        check_model(name, **{"sizes": (64, 128), "seeds": (2,), **options})
    assert says in str(error.value)
    assert "\n" not in str(error.value)
