import pytest

from mue_check import SpecError, get_rule
from mue_check.axes import AXES, parse_axes
from mue_check.judge.drift import MIN_SEEDS
from mue_check.rules import RULES
from mue_check.spec import Dense, Experts, Scenario
from mue_check.tiers import TIERS, get_tier


@pytest.mark.parametrize("tier", TIERS.values(), ids=list(TIERS))
@pytest.mark.parametrize("axis", AXES)
def test_every_ladder_can_be_built_and_prescribed(tier, axis: str) -> None:
    for ladder in (tier.ladder(axis), tier.coordinate_ladder(axis)):
        assert ladder.axis == axis
        assert isinstance(ladder.reference.model.feed_forward, Dense)
        sizes = [rung.size for rung in ladder.rungs]
        assert sizes == sorted(set(sizes))
        for corpus in (*tier.corpora, "tokens.bin"):
            task = tier.task(corpus)
            for rule in RULES:
                reference = Scenario.of(ladder.reference.model, task.train)
                for rung in ladder.rungs:
                    get_rule(rule).prescribe(reference, Scenario.of(rung.model, task.train)).values(task.base)
    assert MIN_SEEDS <= tier.seeds <= tier.max_seeds


def test_the_activated_axis_changes_a_alone() -> None:
    ladder = get_tier("cpu").ladder("activated_experts")
    experts = [rung.model.feed_forward for rung in ladder.targets]
    assert [e.activated for e in experts if isinstance(e, Experts)] == [2, 4, 8]
    assert {(e.total, e.hidden) for e in experts if isinstance(e, Experts)} == {(16, 32)}
    assert {rung.model.width for rung in ladder.rungs} == {32}


def test_names_that_are_not_there() -> None:
    with pytest.raises(SpecError, match="unknown tier 'huge'"):
        get_tier("huge")
    with pytest.raises(SpecError, match="unknown axis 'depth'"):
        parse_axes("width, depth")
    assert parse_axes(None) == AXES
    assert parse_axes(" width ") == ("width",)
