"""Knobs of one role group, and the drifts that mistakes in a prescription are predicted to cause."""

import math

import pytest

from mue_check.errors import RuleError
from mue_check.rules import Factors, HyperParameters, Role, base_value, get_rule, knob_factors, parse_knob
from mue_check.rules.knob import GROUPS, KNOBS, group_of
from mue_check.rules.predicted import predicted_drift, predicted_shift
from mue_check.rules.roles import VECTORS
from mue_check.spec import Scenario
from mue_check.spec_text import parse_scenario

BASE = HyperParameters(lr=0.01, weight_decay=0.2, init_std=0.1)
RIGHT = get_rule("complete_mue")
DENSE = parse_scenario("d=32,L=2,H=32,dh=16")


def target(spec: str) -> Scenario:
    return parse_scenario(spec, default=DENSE)


def test_every_matrix_is_in_one_group() -> None:
    grouped = [role for roles in GROUPS.values() for role in roles]
    assert sorted(grouped) == sorted(set(Role) - VECTORS)


def test_an_unknown_knob_is_told_the_known_ones() -> None:
    with pytest.raises(RuleError, match=r"unknown knob 'lr:experts': allowed are lr, weight_decay, .*lr:feed_forward"):
        parse_knob("lr:experts")
    assert [parse_knob(knob) for knob in KNOBS] == list(KNOBS)


def test_nothing_changes_at_the_base_value() -> None:
    for knob in KNOBS:
        factors = knob_factors(knob, base_value(knob, BASE), BASE)
        assert set(factors.values()) <= {Factors()}
        assert bool(factors) == bool(group_of(knob))


def test_the_rate_of_a_group_keeps_rate_times_decay() -> None:
    factors = knob_factors("lr:feed_forward", 0.04, BASE)
    assert set(factors) == GROUPS["feed_forward"]
    assert factors[Role.EXPERT_UP] == Factors(lr=4.0, weight_decay=0.25)


@pytest.mark.parametrize(
    ("group", "last"),
    [
        ("feed_forward", {Role.FFN_DOWN, Role.EXPERT_DOWN, Role.SHARED_DOWN}),
        ("attention", {Role.ATTENTION_OUT}),
        ("unembedding", {Role.UNEMBEDDING}),
    ],
)
def test_a_multiplier_scales_what_the_last_matrix_starts_with_and_learns(group: str, last: set[Role]) -> None:
    factors = knob_factors(parse_knob(f"multiplier:{group}"), 8.0, BASE)
    assert set(factors) == last
    assert set(factors.values()) == {Factors(init_std=8.0, lr=8.0, weight_decay=0.125)}


@pytest.mark.parametrize(
    ("rule", "spec", "knob", "octaves"),
    [
        ("complete_mue", "16e16a,h=2", "lr:feed_forward", 0.0),
        ("completep_blind", "16e16a,h=2", "lr:feed_forward", 4 / 3),  # R = 16 is missing, and A is 1
        ("completep_blind", "16e16a,h=2", "multiplier:feed_forward", 4.0),
        ("completep_blind", "16e16a,h=8", "lr:feed_forward", 2 / 3),  # A = 1/4 is missing, too
        ("completep_blind", "16e16a16s,h=2", "lr:feed_forward", -math.log2((2 / 16 + 2) / 2) / 3),
        ("standard", "d=128,H=128", "lr:feed_forward", -2.0),
        ("standard", "d=128,H=128", "lr:attention", -2.0),
        ("standard", "d=128,H=128", "lr:unembedding", -2.0),
        ("standard", "d=128,H=128", "multiplier:unembedding", -2.0),
        ("standard", "d=128,H=128", "lr", None),  # embeddings are right: no one shift
        ("mup", "L=16", "multiplier:embedding", 3.0),
        ("mup", "L=16", "lr:embedding", 3.0),
    ],
)
def test_predicted_shifts(rule: str, spec: str, knob: str, octaves: float | None) -> None:
    scenario = target(spec)
    found = predicted_shift(
        parse_knob(knob), RIGHT.prescribe(DENSE, scenario), get_rule(rule).prescribe(DENSE, scenario)
    )
    assert found == (None if octaves is None else pytest.approx(octaves))


def test_a_rule_without_a_factor_for_the_batch_size_is_predicted_half_its_octaves() -> None:
    reference = Scenario(model=DENSE.model, tokens_per_step=64, steps=400)
    scenario = Scenario(model=DENSE.model, tokens_per_step=256, steps=100)
    right, tested = (rule.prescribe(reference, scenario) for rule in (RIGHT, get_rule("mup")))
    assert predicted_shift("lr", right, tested) == pytest.approx(1.0)


def test_a_mistake_at_both_ends_of_a_ladder_cancels() -> None:
    rungs = [target("16e16a,h=8"), target("16e2a,h=8")]
    blind = get_rule("completep_blind")
    pairs = [(RIGHT.prescribe(DENSE, rung), blind.prescribe(DENSE, rung)) for rung in rungs]
    assert predicted_drift("lr:feed_forward", *pairs) == pytest.approx(0.0)  # A R = d / h on every rung
