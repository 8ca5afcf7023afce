"""The published worked example (arXiv 2605.23893): dense d = 128 to 128e8a1s at d = 1024, four times the steps."""

import math

import pytest

from mue_check import HyperParameters, Role, get_rule, parse_scenario

REFERENCE = "d=128,L=32,H=128,B=65536,T=25000"
TARGET = "d=1024,128e8a1s,h=1024,T=100000"
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
    """By role, for the model that these base values were tuned on."""
    reference = parse_scenario(f"{REFERENCE},patch=2,modulation=shared" if base is DIFFUSION else REFERENCE)
    rows = get_rule(rule).prescribe(reference, parse_scenario(TARGET, default=reference)).values(base)
    return {Role(row.role): row for row in rows}


def inputs_and_hidden(base: HyperParameters) -> tuple[set[Role], set[Role]]:
    """The matrices outside the blocks, without the final one."""
    if base is LANGUAGE:
        return {Role.TOKEN_EMBEDDING, Role.POSITION_EMBEDDING}, set()
    inputs = {Role.PATCH_EMBEDDING, Role.TIMESTEP_IN, Role.LABEL_EMBEDDING, Role.SCALE_SHIFT_TABLE}
    return inputs, {Role.TIMESTEP_OUT, Role.MODULATION}


@pytest.mark.parametrize(
    ("base", "lr", "decay", "narrow_std", "down_std"),
    [(LANGUAGE, 5e-4, 0.05, 0.0035, 0.0106), (DIFFUSION, 2.26e-3, 0.01, 0.0071, 0.0212)],
    ids=["language", "diffusion"],
)
def test_every_number_of_the_example(
    base: HyperParameters, lr: float, decay: float, narrow_std: float, down_std: float
) -> None:
    literal = values("complete_mue_literal", base)
    inputs, hidden = inputs_and_hidden(base)
    assert literal.keys() == {*inputs, *hidden, *BLOCK, Role.UNEMBEDDING, Role.NORM_GAIN, Role.BIAS}
    for role in (*inputs, Role.NORM_GAIN, Role.BIAS):
        assert literal[role].lr == pytest.approx(lr)
    for role in inputs:
        assert literal[role].init_std == base.init_std
    for role in (*hidden, *BLOCK, Role.UNEMBEDDING):
        assert literal[role].lr == pytest.approx(lr / 8)
    for row in literal.values():
        assert row.weight_decay == pytest.approx(decay)
    for role in set(BLOCK) - set(DOWN) | hidden | {Role.UNEMBEDDING}:
        assert round(literal[role].init_std, 4) == narrow_std
        assert literal[role].init_std == pytest.approx(base.init_std / math.sqrt(8))
    for role in DOWN:
        assert round(literal[role].init_std, 4) == down_std
        assert literal[role].init_std == pytest.approx(base.init_std * 3 / math.sqrt(8))
        assert literal[role].forward_multiplier == pytest.approx(1 / 9)
    assert parse_scenario(TARGET, default=parse_scenario(REFERENCE)).model.expansion == 9
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
    for role in (*BLOCK, *inputs_and_hidden(base)[1]):
        assert ours[role].weight_decay == pytest.approx(8 * literal[role].weight_decay)
        assert ours[role].lr * ours[role].weight_decay == pytest.approx(base.lr * base.weight_decay / 4)
