"""The coordinate check is worth what it catches: A, R or the down-projection's init left out, each seen by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mue_check.judge.law import LawResult
from mue_check.judge.verdict import Verdict
from mue_check.rules import Prescription, Role, get_rule
from mue_check.study.scales import ask_coordinates
from mue_check.study.setting import Study
from mue_check.tiers import get_tier

Mutation = Callable[[Prescription], Prescription]

MUTANTS: dict[str, Mutation] = {
    "A-missing": lambda p: p.with_factors(Role.EXPERT_DOWN, forward_multiplier=1.0),
    "R-missing": lambda p: p.with_factors(Role.ROUTER, forward_multiplier=1.0),
    "down-init-missing": lambda p: p.with_factors(Role.EXPERT_DOWN, init_std=1.0),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


def study(root: Path, rule: str = "complete_mue", tier: str = "cpu") -> Study:
    made = Study(root=root, tier=get_tier(tier), corpus="markov", rule=get_rule(rule), tolerance=0.5, command="pytest")
    made.store.prepare()
    return made


def results(root: Path, name: str | None = None) -> dict[str, LawResult]:
    def mutate(prescription: Prescription) -> Prescription:
        return replace(MUTANTS[name](prescription), rule=name) if name else prescription

    return {result.law.name: result for result in ask_coordinates(study(root), "activated_experts", mutate).result}


def test_a_right_implementation_passes(root: Path) -> None:
    for result in results(root).values():
        assert result.verdict is Verdict.PASS, str(result)


@pytest.mark.parametrize(
    ("name", "ratio_at_16"), [("A-missing", 16), ("R-missing", 1 / 16), ("down-init-missing", 1 / 4)]
)
def test_what_is_left_out_shows_in_the_branch_at_init(root: Path, name: str, ratio_at_16: float) -> None:
    result = results(root, name)["branch scale at init"]
    assert result.verdict is Verdict.FAIL, str(result)
    assert result.worst == "16e16a"
    assert 2**result.interval.mean == pytest.approx(ratio_at_16, rel=0.05)


def test_branch_scale_at_init_is_within_five_percent_of_dense(root: Path) -> None:
    interval = results(root)["branch scale at init"].interval
    assert abs(2**interval.low - 1) < 0.05
    assert abs(2**interval.high - 1) < 0.05


@pytest.mark.parametrize(
    ("rule", "verdict", "slope"),
    [
        ("complete_mue", Verdict.PASS, 0.0),
        ("complete_mue_literal", Verdict.FAIL, -0.75),
        ("standard", Verdict.FAIL, 0.6),
    ],
)
def test_logits_move_alike_at_every_width(root: Path, rule: str, verdict: Verdict, slope: float) -> None:
    answer = ask_coordinates(study(root, rule), "width")
    logits = next(result for result in answer.result if result.law.name == "logits change")
    assert logits.verdict is verdict, str(logits)
    assert logits.interval.mean == pytest.approx(slope, abs=0.2)
    assert answer.verdict is verdict
