"""The global factors of Complete(d)P (arXiv 2512.22382, Table 1), in the rules that have them and not in the others."""

import pytest

from mue_check import RULES, HyperParameters, Role, RuleError, get_rule, parse_scenario
from mue_check.rules.roles import HIDDEN

REFERENCE = parse_scenario("d=32,L=2,H=32,B=512,T=200")
WITH = ["complete_mue", "complete_mue_literal", "complete_mue_cdp", "completed_p"]
WITHOUT = sorted(set(RULES) - set(WITH))
CHANGES = [
    ("B=2048,T=50", 2, 0.5, 4),  # fixed tokens
    ("B=2048", 1, 1, 1),  # fixed steps
    ("T=800", 0.5, 2, 0.25),  # fixed batch
    ("B=1024,T=800", 0.5, 2, 0.25),  # both: the batch cancels, four times the steps remain
]


@pytest.mark.parametrize("rule", WITH)
@pytest.mark.parametrize("model", ["H=32", "16e2a1s"])
@pytest.mark.parametrize(("text", "lr", "eps", "one_minus_beta"), CHANGES)
def test_the_table_holds_for_every_role(
    rule: str, model: str, text: str, lr: float, eps: float, one_minus_beta: float
) -> None:
    target = parse_scenario(f"{model},{text}", default=REFERENCE)
    for role, f in get_rule(rule).prescribe(REFERENCE, target).factors.items():
        assert (f.lr, f.weight_decay) == (pytest.approx(lr), pytest.approx(lr)), role
        assert f.eps == pytest.approx(eps), role
        assert f.one_minus_beta == pytest.approx(one_minus_beta), role
        # the invariant: eta * lambda * steps
        assert f.lr * f.weight_decay * target.steps == pytest.approx(REFERENCE.steps), role


@pytest.mark.parametrize("rule", WITHOUT)
@pytest.mark.parametrize("text", [change[0] for change in CHANGES])
def test_the_other_rules_do_not_look_at_batch_or_duration(rule: str, text: str) -> None:
    here = get_rule(rule).prescribe(REFERENCE, parse_scenario("d=64,16e2a", default=REFERENCE))
    there = get_rule(rule).prescribe(REFERENCE, parse_scenario(f"d=64,16e2a,{text}", default=REFERENCE))
    assert here.factors == there.factors


@pytest.mark.parametrize("rule", sorted(RULES))
def test_lr_times_decay_of_hidden_weights_across_width(rule: str) -> None:
    target = parse_scenario("d=128,16e2a1s,h=16", default=REFERENCE)
    p = get_rule(rule).prescribe(REFERENCE, target)
    # moe_mup has one decay for all, and a router of its own
    alone = rule == "complete_mue_literal" or rule.startswith("moe_mup")
    matrices = (HIDDEN & set(p.factors)) - ({Role.ROUTER} if rule.startswith("moe_mup") else set())
    assert {p[role].lr * p[role].weight_decay for role in matrices} == ({0.25} if alone else {1.0})


@pytest.mark.parametrize("rule", WITH)
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("B=16384,T=6", r"beta1=0\.9 becomes -2\.\d+ .* must lie in \[0, 1\)"),  # 0.1 * 33 is over 1
        ("T=10", r"beta1=0\.9 becomes -1 .* must lie in \[0, 1\)"),
    ],
)
def test_a_beta_outside_its_range_is_refused(rule: str, text: str, says: str) -> None:
    p = get_rule(rule).prescribe(REFERENCE, parse_scenario(text, default=REFERENCE))
    with pytest.raises(RuleError, match=says):
        p.values(HyperParameters())


def test_beta2_is_looked_at_too() -> None:
    p = get_rule("completed_p").prescribe(REFERENCE, parse_scenario("T=40", default=REFERENCE))
    with pytest.raises(RuleError, match=r"beta2=0\.5 becomes -1\.5 "):
        p.values(HyperParameters(beta1=0.9, beta2=0.5))
