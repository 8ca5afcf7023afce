"""Studies of the laboratory: of a world whose gamma and kappa are known, and one that holds every question."""

from pathlib import Path

import pytest

from mue_check.catalog import summarize
from mue_check.questions.summary import Summary
from mue_check.sigma0.calibration import read_calibration
from mue_check.sigma0.forecast import ask_forecast
from mue_check.sigma0.gamma import ask_gamma
from mue_check.sigma0.ladders import load_use
from mue_check.sigma0.shift import ask_shift, ask_sigma0_drift
from mue_check.study.folder import Study
from tests.sigma0 import world


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study of the known world, in which nothing is trained."""
    world.fill(monkeypatch)
    return world.study_at(tmp_path / "known", world.tier_of(monkeypatch, world.SMALL))


@pytest.fixture(scope="session")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of the known world with every question of suites/test_sigma0.py; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        world.fill(patch)
        study = world.study_at(tmp_path_factory.mktemp("studies") / "asked", world.tier_of(patch, world.SMALL))
        for ladder in study.tier.ladders("sigma0", "noise"):
            for switched in (False, True):
                ask_gamma(study, ladder, switched=switched)
        for ladder in study.tier.ladders("sigma0"):
            for target in ladder.targets:
                use = load_use(ladder.name)
                if use == "heldout":
                    ask_forecast(study, ladder, target, read_calibration())
                else:
                    ask_sigma0_drift(study, ladder, target)
                if use != "probe":
                    ask_shift(study, ladder, target)
    return study


@pytest.fixture(scope="session")
def summary(asked: Study) -> Summary:
    """That study, judged."""
    return summarize(asked.root)
