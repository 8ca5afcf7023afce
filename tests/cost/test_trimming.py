"""--seeds and --rungs of `pytest suites/`."""

from pathlib import Path

import pytest

from mue_check.catalog import get_tier
from mue_check.cost.dry_run import dry_run
from mue_check.errors import SpecError
from mue_check.suite.trimming import cut, parse_rungs, with_seeds


def test_seeds_replace_the_tiers() -> None:
    cpu = get_tier("cpu")
    assert with_seeds(cpu, None) is cpu
    assert [(t.seeds, t.max_seeds) for t in (with_seeds(cpu, "5"), with_seeds(cpu, "4:12"))] == [(5, 5), (4, 12)]
    assert with_seeds(cpu, "4:5").seed_limit == 5
    assert cpu.seed_limit is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3", "at least 4 are needed"),
        ("3:8", "at least 4 are needed"),
        ("8:4", "HIGH must be at least LOW"),
        ("4:1001", "at most 1000"),
        ("four", "write LOW or LOW:HIGH"),
        ("4:", "write LOW or LOW:HIGH"),
        ("-4", "write LOW or LOW:HIGH"),
    ],
)
def test_senseless_seeds_are_refused(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        with_seeds(get_tier("cpu"), text)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "all", ""])
def test_senseless_rungs_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"--rungs .*: must be a whole number of at least 1"):
        parse_rungs(text)


def test_rungs_cut_the_last_targets_of_every_ladder_but_those_of_noise() -> None:
    lab = get_tier("lab")
    for axis in ("depth", "activated_experts", "sigma0"):
        for ladder in lab.ladders(axis):
            assert cut(ladder, 2).targets == ladder.targets[:2]
            assert cut(ladder, 2).reference == ladder.reference
            assert cut(ladder, None) is ladder
    for ladder in lab.ladders("sigma0", "noise"):
        assert cut(ladder, 1) is ladder


def test_fewer_rungs_are_fewer_tests_and_the_study_is_not_touched(tmp_path: Path) -> None:
    depth = get_tier("cpu").ladder("depth")
    assert depth is not None
    assert [rung.label for rung in depth.targets] == ["L8", "L16"]
    run = dry_run(["--tier=cpu", "--axes=depth", "--seeds=4:5", "--rungs=1", f"--study={tmp_path / 'study'}"])
    tests = " ".join(each.test for each in run.tests)
    assert "depth-L8" in tests
    assert "depth-L16" not in tests
    assert not (tmp_path / "study").exists()
    assert "--seeds 4:5 --rungs 1" in run.settings.command("suites/test_depth.py")
