"""``parametrize_with_model_checks``: one test of pytest for each check of a model."""

from pathlib import Path

import pytest

from mue_check import parametrize_with_model_checks
from mue_check.own_model import Plan, Study
from mue_check.own_model.candidate import ModelError

pytest_plugins = ("pytester",)

TESTS = """
import mue_check
from mue_check.own_model import Plan, Study
from tests.own_model.mup_like import WithBaseShapes
from tests.own_model.valley import Valley

mlp = {"sizes": (32, 64, 128), "base": 32}
right, wrong = WithBaseShapes("mlp"), WithBaseShapes("mlp", shapes=False)


@mue_check.parametrize_with_model_checks([right], **mlp)
def test_right(check):
    check()


@mue_check.parametrize_with_model_checks([wrong], expected={"parameters": "the shapes are missing"}, **mlp)
def test_wrong(check):
    check()


study = Study(root="STUDY", plan=Plan(steps=1), lr=0.5, ask=("tune_once", "drift"), seeds=(4, 4))


@mue_check.parametrize_with_model_checks([Valley(exponent=1.0)], sizes=(32, 64), study=study, base=0)
def test_study(check):
    check()
"""


def test_one_case_for_each_check(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    pytester.makepyfile(TESTS.replace('"STUDY"', f"__import__('pathlib').Path({str(pytester.path / 'study')!r})"))
    # in process, modules would be imported twice, which torch.distributed does not take
    result = pytester.runpytest_subprocess("-rA", "-p", "no:cacheprovider")
    outcomes = {line.split("[")[-1].rstrip("]"): line for line in result.outlines if "test_" in line and "[" in line}
    result.assert_outcomes(passed=6, failed=3, xfailed=1, skipped=4)
    result.stdout.re_match_lines_random([r"FAIL .*output +hidden .*", r".*model0-drift.*", r".*1\.00 \[.*FAIL.*"])
    assert any(key.startswith("model0-tune_once") for key in outcomes)


def test_an_unknown_check_is_one_clear_line() -> None:
    with pytest.raises(
        ModelError, match=r"unknown check 'bases' .did you mean 'base'..: allowed are base, parameters, outputs, blocks"
    ):
        parametrize_with_model_checks([], expected={"bases": ""})


def test_the_checks_are_those_of_the_options(tmp_path) -> None:
    def named(**options: object) -> list[str]:
        mark = parametrize_with_model_checks(["mine.py"], **options).mark
        return [case.id for case in mark.args[1]]

    always = [f"mine.py-{name}" for name in ("base", "parameters", "outputs", "blocks")]
    assert named() == always
    study = Study(root=tmp_path, plan=Plan(steps=1), lr=0.1, ask=("drift",))
    assert named(reference="d=64", study=study) == [*always, "mine.py-audit", "mine.py-drift"]
