"""A verifier is worth what it catches: every shipped mutant, each by the check and the law that names it."""

from functools import partial
from pathlib import Path

import pytest

from mue_check.catalog import get_tier
from mue_check.data import give_data
from mue_check.judge.law import LawResult
from mue_check.judge.verdict import Verdict
from mue_check.modalities import LANGUAGE
from mue_check.mutants.mutant import CheckOutcome, Mutant
from mue_check.mutants.rules import MUTANTS, examine_rule, is_possible, mutant_rule
from mue_check.mutants.run import get_mutant, run
from mue_check.questions.scales import ask_scales
from mue_check.questions.values import ask_values
from mue_check.rules import RULES, get_rule
from mue_check.study.folder import Study
from tests.images import made_up_images
from tests.studies import study_at

WAVES = "waves"
LADDERS = ("width", "width_of_mixture", "depth", "batch_at_fixed_tokens", "duration_at_fixed_batch", "routing_hybrids")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


def study(root: Path, rule: str = "complete_mue", tier: str = "smoke", modality: str = LANGUAGE) -> Study:
    corpus = "markov" if modality == LANGUAGE else WAVES
    return study_at(root, tier=get_tier(tier, modality), corpus=corpus, rule=get_rule(rule))


def laws(
    root: Path, ladder_name: str, mutant: Mutant | None = None, rule: str = "complete_mue"
) -> dict[str, LawResult]:
    asked = study(root, rule)
    ladder = asked.tier.ladder(ladder_name, "scales")
    assert ladder is not None
    found = ask_scales(asked, ladder, mutant, flaw=mutant.flaw) if mutant else ask_scales(asked, ladder)
    return {result.law.name: result for result in found.results}


def examined(root: Path, mutant: Mutant) -> dict[str, CheckOutcome]:
    return {o.check: o for o in examine_rule(study(root), mutant, ["scales", "audit"])}


def possible(modality: str) -> list[object]:
    """Those of the mutants that its models can have; of diffusion models, those that no language model can have."""
    made = Study(
        root=Path(), tier=get_tier("smoke", modality), corpus="", rule=get_rule("complete_mue"), tolerance=1, command=""
    )
    mutants = [mutant for mutant in MUTANTS if is_possible(made, mutant)]
    known = [] if modality == LANGUAGE else [param.values[1] for param in possible(LANGUAGE)]
    return [pytest.param(modality, m, id=f"{modality}-{m.name}") for m in mutants if m not in known]


@pytest.mark.parametrize(("modality", "mutant"), [*possible(LANGUAGE), *possible("image_low")])
def test_every_mutant_is_caught_by_the_check_that_names_it(root: Path, modality: str, mutant: Mutant) -> None:
    give_data(WAVES, made_up_images())
    (result,) = run([mutant], partial(examine_rule, study(root, modality=modality), checks=[mutant.caught_by]))
    assert result.killed, result


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.caught_by == "audit"], ids=lambda mutant: mutant.name)
def test_scales_are_blind_to_what_the_audit_is_there_for(root: Path, mutant: Mutant) -> None:
    outcomes = examined(root, mutant)
    assert outcomes["audit"].caught
    assert "scales" not in outcomes or not outcomes["scales"].caught


def test_a_right_implementation_is_no_mutant(root: Path) -> None:
    right = mutant_rule(lambda p: p, name="complete_mue", summary="right", ladder="width")
    outcomes = examined(root, right)
    assert [(check, o.verdict) for check, o in outcomes.items()] == [("scales", Verdict.PASS), ("audit", Verdict.PASS)]


@pytest.mark.parametrize("ladder", LADDERS)
@pytest.mark.parametrize("rule", RULES)
def test_what_a_rule_prescribes_arrives(root: Path, rule: str, ladder: str) -> None:
    asked = study(root, rule, tier="cpu")
    found = asked.tier.ladder(ladder)
    assert found is not None
    values = ask_values(asked, found, found.targets[-1])
    assert values.verdict is Verdict.PASS, values.measured


@pytest.mark.parametrize(
    ("name", "ratio_at_16"), [("A_missing", 16), ("R_missing", 1 / 16), ("down_init_missing", 1 / 4)]
)
def test_what_is_left_out_shows_in_the_branch_at_init(root: Path, name: str, ratio_at_16: float) -> None:
    result = laws(root, "activated_experts", get_mutant(name))["branch scale at init"]
    assert result.verdict is Verdict.FAIL, str(result)
    assert result.worst == "16e16a"
    assert 2**result.interval.mean == pytest.approx(ratio_at_16, rel=0.05)


@pytest.mark.parametrize(
    ("rule", "verdict", "slope"),
    [
        ("complete_mue", Verdict.PASS, 0.0),
        ("complete_mue_cdp", Verdict.PASS, 0.0),
        ("mup", Verdict.PASS, 0.0),
        ("complete_mue_literal", Verdict.FAIL, -0.75),
        ("standard", Verdict.FAIL, 0.6),
    ],
)
def test_logits_move_alike_at_every_width(root: Path, rule: str, verdict: Verdict, slope: float) -> None:
    logits = laws(root, "width", rule=rule)["logits change"]
    assert logits.verdict is verdict, str(logits)
    assert logits.interval.mean == pytest.approx(slope, abs=0.2)
