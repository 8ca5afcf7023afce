"""Every rule's factors as plain numbers, worked out by hand from the papers' tables."""

from collections.abc import Mapping

import pytest

from mue_check import RULES, Role, get_rule, parse_scenario
from mue_check.rules.roles import roles_of

REFERENCE = parse_scenario("d=32,L=2,H=32,B=512,T=200")
DENSE = "d=64,L=8,H=64"
"""rho_d = 2, m_L = 4."""
MIXTURE = "d=64,16e7a1s,h=16"
"""rho_d = 2, h/H* = 1/2, H_act/d = 8 * 16 / 64 = 2, a = 7."""

R = 2**-0.5
Line = tuple[float, float, float, float, float]
"""Init std, LR, weight decay, eps, forward multiplier."""
ONE: Line = (1, 1, 1, 1, 1)


def check(rule: str, text: str, expected: Mapping[str, Line]) -> None:
    """``expected`` by the short names below; every role of the target must be among them, in both families."""
    members = {
        "embedding": (
            Role.TOKEN_EMBEDDING,
            Role.POSITION_EMBEDDING,
            Role.PATCH_EMBEDDING,
            Role.TIMESTEP_IN,
            Role.LABEL_EMBEDDING,
            Role.SCALE_SHIFT_TABLE,
        ),
        "in": (
            Role.TIMESTEP_OUT,
            Role.MODULATION,
            Role.ATTENTION_QKV,
            *(Role(f"{of}_{way}") for of in ("ffn", "expert", "shared") for way in ("up", "gate")),
        ),
        "out": (Role.ATTENTION_OUT,),
        "down": (Role.FFN_DOWN, Role.EXPERT_DOWN, Role.SHARED_DOWN),
        "router": (Role.ROUTER,),
        "unembedding": (Role.UNEMBEDDING,),
        "vector": (Role.NORM_GAIN, Role.BIAS),
    }
    short = {role: name for name, roles in members.items() for role in roles}
    for family, roles in (("", 0), (",patch=2,modulation=shared", 4)):
        reference = parse_scenario(f"{REFERENCE}{family}")
        factors = get_rule(rule).prescribe(reference, parse_scenario(text, default=reference)).factors
        for role, f in factors.items():
            line = (f.init_std, f.lr, f.weight_decay, f.eps, f.forward_multiplier)
            assert line == pytest.approx(expected[short[role]]), (rule, role)
            assert f.one_minus_beta == 1
        assert len(factors) == len(roles_of(parse_scenario(text, default=REFERENCE).model)) + roles


TP5: Line = (1, 1, 1, 1, 0.5)
DENSE_DEPTH: dict[str, Line] = {
    "embedding": ONE,
    "in": (R, 0.5, 2, 0.125, 1),
    "out": (R, 0.5, 2, 0.125, 0.25),
    "down": (R, 0.5, 2, 0.125, 0.25),
    "unembedding": TP5,
    "vector": ONE,
}
DENSE_WIDTH: dict[str, Line] = {**DENSE_DEPTH, **dict.fromkeys(("in", "out", "down"), (R, 0.5, 2, 0.5, 1))}
HIDDEN: Line = (R, 0.5, 1, 1, 1)
MOE_MUP: dict[str, Line] = {
    "embedding": ONE,
    "in": HIDDEN,
    "out": HIDDEN,
    "down": HIDDEN,
    "router": ONE,
    "unembedding": TP5,
    "vector": ONE,
}
MOE_MUP_DENSE: dict[str, Line] = {**MOE_MUP, **dict.fromkeys(("out", "down"), (R / 2, 0.5, 1, 1, 1))}
DENSE_TABLE: dict[str, dict[str, Line]] = {
    "complete_mue": DENSE_DEPTH,
    "complete_mue_literal": {
        **DENSE_DEPTH,
        "in": (R, 0.5, 1, 0.125, 1),
        "out": (R, 0.5, 1, 0.125, 0.25),
        "down": (R, 0.5, 1, 0.125, 0.25),
        "unembedding": (R, 0.5, 1, 1, 0.5),
    },
    "complete_mue_cdp": {**DENSE_DEPTH, "unembedding": (0.5, 0.5, 2, 2, 1)},
    "completed_p": {**DENSE_DEPTH, "embedding": (1, 1, 1, 0.5, 1), "unembedding": (0.5, 0.5, 2, 1, 1)},
    "completep": DENSE_DEPTH,
    "completep_blind": DENSE_DEPTH,
    "mup": DENSE_WIDTH,
    "moe_mup": MOE_MUP_DENSE,
    "moe_mup_scaled_router": MOE_MUP_DENSE,
    "dmft_moe": DENSE_DEPTH,
    "standard": {**dict.fromkeys(DENSE_DEPTH, ONE), **dict.fromkeys(("in", "out", "down"), (R, 1, 1, 1, 1))},
}

BRIDGED: dict[str, Line] = {
    "embedding": ONE,
    "in": (R, 0.5, 2, 0.5, 1),
    "out": (R, 0.5, 2, 0.5, 1),
    "router": (R, 0.5, 2, 0.5, 7),
    "down": (1, 0.5, 2, 0.5, 0.5),
    "unembedding": TP5,
    "vector": ONE,
}
OWN: dict[str, Line] = {**BRIDGED, "router": (R, 0.5, 2, 0.5, 1), "down": (2**0.5, 2, 0.5, 0.5, 1)}
MIXTURE_TABLE: dict[str, dict[str, Line]] = {
    "complete_mue": BRIDGED,
    "complete_mue_literal": {
        **BRIDGED,
        **dict.fromkeys(("in", "out"), (R, 0.5, 1, 0.5, 1)),
        "router": (R, 0.5, 1, 0.5, 7),
        "down": (1, 0.5, 1, 0.5, 0.5),
        "unembedding": (R, 0.5, 1, 1, 0.5),
    },
    "complete_mue_cdp": {**BRIDGED, "unembedding": (0.5, 0.5, 2, 2, 1)},
    "completed_p": {**OWN, "embedding": (1, 1, 1, 0.5, 1), "unembedding": (0.5, 0.5, 2, 1, 1)},
    "completep": OWN,
    "completep_blind": {**OWN, "down": (R, 0.5, 2, 0.5, 1)},
    "mup": OWN,
    "moe_mup": MOE_MUP,
    "moe_mup_scaled_router": {**MOE_MUP, "router": (0.5, 0.5, 2, 2, 1)},
    "dmft_moe": {**OWN, "router": (0.5, 0.5, 2, 1, 1), "down": (2 * 2**0.5, 2, 0.5, 0.5, 1)},
    "standard": {
        **dict.fromkeys(BRIDGED, ONE),
        **dict.fromkeys(("in", "out", "router"), (R, 1, 1, 1, 1)),
        "down": (2**0.5, 1, 1, 1, 1),
    },
}


@pytest.mark.parametrize("rule", RULES)
def test_width_and_depth_of_a_dense_model(rule: str) -> None:
    check(rule, DENSE, DENSE_TABLE[rule])


@pytest.mark.parametrize("rule", RULES)
def test_experts_of_another_width_than_the_backbone(rule: str) -> None:
    check(rule, MIXTURE, MIXTURE_TABLE[rule])


@pytest.mark.parametrize("rule", RULES)
def test_at_fixed_width_only_complete_mue_answers_to_the_number_of_active_experts(rule: str) -> None:
    target = parse_scenario("16e2a", default=REFERENCE)
    ours, other = (get_rule(name).prescribe(REFERENCE, target) for name in ("complete_mue", rule))
    names = ("init_std", "lr", "weight_decay", "eps", "one_minus_beta", "forward_multiplier")
    apart = {(r, name) for r in ours.factors for name in names if getattr(ours[r], name) != getattr(other[r], name)}
    bridges = {
        (Role.EXPERT_DOWN, "init_std"),
        (Role.EXPERT_DOWN, "forward_multiplier"),
        (Role.ROUTER, "forward_multiplier"),
    }
    assert apart == (set() if rule.startswith("complete_mue") else bridges)


def test_depth_counts_in_a_mixture_too() -> None:
    target = parse_scenario("L=8,16e2a", default=REFERENCE)
    for rule, eps in (("completep", 0.25), ("completep_blind", 0.25), ("dmft_moe", 0.25), ("moe_mup", 1)):
        p = get_rule(rule).prescribe(REFERENCE, target)
        assert p[Role.EXPERT_DOWN].forward_multiplier == p[Role.ATTENTION_OUT].forward_multiplier == eps
        assert p[Role.ROUTER].eps == eps
        assert p[Role.ROUTER].forward_multiplier == 1
