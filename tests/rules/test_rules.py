import math

import pytest

from mue_check import RULES, HyperParameters, Role, RuleError, Scenario, get_rule, parse_scenario
from mue_check.rules.roles import roles_of

REFERENCE = parse_scenario("d=32,L=2,H=32,B=512,T=200")


def prescribe(text: str, rule: str = "complete_mue"):
    return get_rule(rule).prescribe(REFERENCE, parse_scenario(text, default=REFERENCE))


@pytest.mark.parametrize("rule", RULES)
def test_the_reference_is_left_as_it_is(rule: str) -> None:
    for role, f in prescribe("d=32", rule).factors.items():
        assert (f.init_std, f.lr, f.weight_decay, f.eps, f.one_minus_beta) == (1, 1, 1, 1, 1), role
        assert f.forward_multiplier == 1


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("text", ["H=32", "16e4a", "16e4a2g1s"])
def test_every_role_of_the_target_has_factors(rule: str, text: str) -> None:
    target = parse_scenario(text, default=REFERENCE)
    assert tuple(get_rule(rule).prescribe(REFERENCE, target).factors) == roles_of(target.model)


@pytest.mark.parametrize(
    ("text", "active"), [("16e8a,h=32", 8), ("16e2a1s,h=32", 3), ("16e16a,h=2", 1), ("8e4a2g,h=8", 1)]
)
def test_bridges(text: str, active: float) -> None:
    p = prescribe(text)
    assert p[Role.EXPERT_DOWN].forward_multiplier == pytest.approx(1 / active)
    assert p[Role.EXPERT_DOWN].init_std == pytest.approx(math.sqrt(active))
    assert p[Role.EXPERT_DOWN].lr == 1
    experts = p.target.model.feed_forward
    assert p[Role.ROUTER].forward_multiplier == experts.activated  # type: ignore[union-attr]
    assert p[Role.EXPERT_UP].init_std == 1


@pytest.mark.parametrize("rule", RULES)
def test_only_standard_leaves_the_form_of_attention_that_goes_with_the_head_width(rule: str) -> None:
    wide = prescribe("d=64,H=64,dh=64", rule)[Role.ATTENTION_QKV].forward_multiplier
    assert wide == (2 if rule == "standard" else 1)  # 1/sqrt(64) = 1/8; the 1/d_head form gives 4/64 = 1/16


def test_unknown_role_and_rule_name_the_known_ones() -> None:
    p = prescribe("16e4a")
    with pytest.raises(RuleError, match=r"unknown role 'lm_head': allowed are token_embedding"):
        p["lm_head"]
    with pytest.raises(RuleError, match="prescribes nothing for role 'ffn_up'"):
        p[Role.FFN_UP]
    with pytest.raises(
        RuleError, match=r"unknown rule 'u_mup' .did you mean 'mup'..: allowed are complete_mue, .*, standard"
    ):
        get_rule("u_mup")


@pytest.mark.parametrize(
    "change", [{"lr": 0.0}, {"lr": -1.0}, {"eps": float("nan")}, {"beta2": 1.0}, {"init_std": 0.0}]
)
def test_impossible_base_values(change: dict[str, float]) -> None:
    with pytest.raises(RuleError, match=next(iter(change))):
        HyperParameters(**change)


def test_a_changed_factor_changes_that_role_alone() -> None:
    p = prescribe("16e4a")
    mutant = p.with_factors(Role.ROUTER, forward_multiplier=1.0)
    assert mutant[Role.ROUTER].forward_multiplier == 1
    assert {r for r in p.factors if p[r] != mutant[r]} == {Role.ROUTER}


def test_constants_have_no_spread() -> None:
    rows = {row.role: row for row in prescribe("d=64").values(HyperParameters())}
    assert rows["norm_gain"].init_std == rows["bias"].init_std == 0


def test_scenario_refuses_nonsense() -> None:
    with pytest.raises(Exception, match="tokens_per_step=0"):
        Scenario(model=REFERENCE.model, tokens_per_step=0)
