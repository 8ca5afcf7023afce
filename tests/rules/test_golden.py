"""The published worked example (arXiv 2605.23893): dense d = 128 to 128e8a1s at d = 1024, four times the steps."""

import math

import pytest

from mue_check import HyperParameters, Role, get_rule, parse_scenario

REFERENCE = parse_scenario("d=128,L=32,H=128,B=65536,T=25000")
TARGET = parse_scenario("d=1024,L=32,128e8a1s,h=1024,B=65536,T=100000")
LANGUAGE = HyperParameters(lr=1e-3, weight_decay=0.10, init_std=0.01)
DIFFUSION = HyperParameters(lr=4.52e-3, weight_decay=0.02, init_std=0.02)
DOWN = (Role.EXPERT_DOWN, Role.SHARED_DOWN)
BLOCK = (
    Role.ATTENTION_QKV,
    Role.ATTENTION_OUT,
    Role.ROUTER,
    Role.EXPERT_UP,
    Role.EXPERT_GATE,
    Role.EXPERT_DOWN,
    Role.SHARED_UP,
    Role.SHARED_GATE,
    Role.SHARED_DOWN,
)


def values(rule: str, base: HyperParameters):
    rows = get_rule(rule).prescribe(REFERENCE, TARGET).values(base)
    return {Role(row.role): row for row in rows}


@pytest.mark.parametrize(
    ("base", "lr", "decay", "narrow_std", "down_std"),
    [(LANGUAGE, 5e-4, 0.05, 0.0035, 0.0106), (DIFFUSION, 2.26e-3, 0.01, 0.0071, 0.0212)],
    ids=["language", "diffusion"],
)
def test_every_number_of_the_example(
    base: HyperParameters, lr: float, decay: float, narrow_std: float, down_std: float
) -> None:
    literal = values("complete_mue_literal", base)
    for role in (Role.TOKEN_EMBEDDING, Role.POSITION_EMBEDDING, Role.NORM_GAIN, Role.BIAS):
        assert literal[role].lr == pytest.approx(lr)
    for role in (*BLOCK, Role.UNEMBEDDING):
        assert literal[role].lr == pytest.approx(lr / 8)
    for row in literal.values():
        assert row.weight_decay == pytest.approx(decay)
    for role in set(BLOCK) - set(DOWN) | {Role.UNEMBEDDING}:
        assert round(literal[role].init_std, 4) == narrow_std
        assert literal[role].init_std == pytest.approx(base.init_std / math.sqrt(8))
    for role in DOWN:
        assert round(literal[role].init_std, 4) == down_std
        assert literal[role].init_std == pytest.approx(base.init_std * 3 / math.sqrt(8))
        assert literal[role].forward_multiplier == pytest.approx(1 / 9)
    assert TARGET.model.expansion == 9
    assert literal[Role.ROUTER].forward_multiplier == 8
    assert literal[Role.UNEMBEDDING].forward_multiplier == pytest.approx(1 / 8)


@pytest.mark.parametrize("base", [LANGUAGE, DIFFUSION], ids=["language", "diffusion"])
def test_complete_mue_differs_in_the_final_projection_and_in_decay_across_width_alone(base: HyperParameters) -> None:
    ours, literal = values("complete_mue", base), values("complete_mue_literal", base)
    assert ours.keys() == literal.keys()
    for role, row in ours.items():
        same = ("forward_multiplier", "beta1", "beta2", "eps")
        if role is not Role.UNEMBEDDING:
            same += ("init_std", "lr")
        for name in same:
            assert getattr(row, name) == getattr(literal[role], name), (role, name)
    assert ours[Role.UNEMBEDDING].init_std == base.init_std
    assert ours[Role.UNEMBEDDING].lr == pytest.approx(base.lr / 2)
    for role in BLOCK:
        assert ours[role].weight_decay == pytest.approx(8 * literal[role].weight_decay)
        assert ours[role].lr * ours[role].weight_decay == pytest.approx(base.lr * base.weight_decay / 4)
