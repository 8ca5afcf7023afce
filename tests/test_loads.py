"""Target loads: what their names mean, what is refused, and how a SPEC carries them."""

import math

import pytest

from mue_check import Experts, SpecError, parse_scenario
from mue_check.loads import as_load, hot, parse_load, require_feasible, require_target, spread_over_groups, zipf

REFERENCE = parse_scenario("d=32,L=2,H=32")


def test_names_are_what_they_say() -> None:
    assert parse_load("uniform", experts=4) == (0.25,) * 4
    assert parse_load("zipf:0", experts=4) == (0.25,) * 4
    assert parse_load("zipf:1", experts=3) == pytest.approx((6 / 11, 3 / 11, 2 / 11))
    steep = parse_load("zipf:1.5", experts=16)
    assert [math.log2(steep[0] / steep[k - 1]) for k in (2, 4, 16)] == pytest.approx([1.5, 3, 6])
    assert parse_load("hot:2:0.6", experts=6) == pytest.approx((0.3, 0.3, 0.1, 0.1, 0.1, 0.1))
    assert parse_load("3/1/4", experts=3) == pytest.approx((3 / 8, 1 / 8, 1 / 2))
    assert parse_load("0.5/0.25/0.25", experts=3) == (0.5, 0.25, 0.25)


@pytest.mark.parametrize("text", ["uniform", "zipf:0.5", "zipf:10", "hot:1:0.9", "hot:15:0.001", "1e-9/1" + "/1" * 14])
def test_shares_sum_to_one(text: str) -> None:
    for groups in (1, 2, 4):
        load = parse_load(text, experts=16, groups=groups)
        assert len(load) == 16
        assert math.fsum(load) == pytest.approx(1, abs=1e-12)
        assert min(load) > 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "unknown load ''"),
        ("even", "write uniform, zipf:EXPONENT, hot:EXPERTS:SHARE or a share per expert joined by /"),
        ("uniform:1", "unknown load 'uniform:1'"),
        ("zipf", "unknown load 'zipf'"),
        ("zipf:x", "unknown load 'zipf:x'"),
        ("zipf:-1", "exponent must lie between 0 and 10"),
        ("zipf:11", "exponent must lie between 0 and 10"),
        ("hot:2", "unknown load 'hot:2'"),
        ("hot:0:0.5", "at least 1 and fewer than all 4 experts"),
        ("hot:4:0.5", "at least 1 and fewer than all 4 experts"),
        ("hot:1:1", "between 0 and 1"),
        ("hot:1:nan", "between 0 and 1"),
        ("1/2/3", "has 3 numbers for 4 experts"),
        ("1/2//3", "unknown load"),
        ("1/2/nan/3", "gives expert 2 the load nan"),
        ("1/-2/3/4", "gives expert 1 the load -2: it must be a finite number >= 0"),
        ("0/0/0/0", "zero for every expert"),
    ],
)
def test_what_is_no_load_is_one_line(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        parse_load(text, experts=4)
    assert "\n" not in str(caught.value)


def test_counts_become_shares() -> None:
    assert as_load([10, 30, 0, 60], experts=4) == pytest.approx((0.1, 0.3, 0.0, 0.6))


def test_no_expert_can_have_more_than_one_part_in_a() -> None:
    for a in (1, 2, 3):
        load = (1 / a, *((1 - 1 / a) / 3,) * 3) if a > 1 else (0.7, 0.1, 0.1, 0.1)
        require_feasible(load, activated=a)
    # the largest feasible share is named
    with pytest.raises(SpecError, match=r"expert 0 has the share 0\.51 .*a=2 .* largest feasible share is 1/a = 0\.5"):
        require_feasible((0.51, 0.49), activated=2)
    with pytest.raises(SpecError, match=r"expert 2 has the share 0\.4 .*a=3 .* 1/a = 0\.3333"):
        require_feasible((0.2, 0.2, 0.4, 0.2), activated=3)
    require_feasible((1 / 3,) * 3, activated=3)  # the rounding of 1/3 is no offence


@pytest.mark.parametrize("share", [0.0, math.nan])
def test_an_expert_without_load_is_refused(share: float) -> None:
    with pytest.raises(SpecError, match=rf"target load of expert 0 is {share:g}: must be above 0"):
        require_target((share, 0.5, 0.5), activated=1)
    if share == 0:
        require_feasible((share, 0.5, 0.5), activated=1)  # it can be, and trains nothing


def test_each_group_has_its_part() -> None:
    require_feasible((0.3, 0.2, 0.1, 0.4), activated=2, groups=2)
    with pytest.raises(SpecError, match=r"group 0 has the share 0\.6 .*G=2 has 1/G = 0\.5"):
        require_feasible((0.3, 0.3, 0.1, 0.3), activated=2, groups=2)


@pytest.mark.parametrize("text", ["zipf:0", "zipf:0.5", "zipf:1", "hot:2:0.4"])
def test_named_loads_are_dealt_out_to_groups(text: str) -> None:
    for groups in (1, 2, 4):
        load = parse_load(text, experts=16, groups=groups)
        size = 16 // groups
        for g in range(groups):
            part = load[g * size : (g + 1) * size]
            assert sum(part) == pytest.approx(1 / groups)
            assert part == pytest.approx(load[:size])  # the same profile in each
            assert list(part) == sorted(part, reverse=True)
        require_feasible(load, activated=groups, groups=groups)
    assert spread_over_groups(zipf(4, 1.0), 2) == pytest.approx((0.36, 0.14, 0.36, 0.14))
    assert spread_over_groups(hot(4, 1, 0.4), 1) == hot(4, 1, 0.4)


SPECS = [
    "16e2a,h=16,balance=selection_bias,load=uniform",
    "16e2a,h=16,balance=selection_bias,load=zipf:0.5",
    "16e1a1s,h=16,router=switch,balance=selection_bias,load=zipf:1.5",
    "16e4a2g,h=8,router=moge,balance=selection_bias,load=zipf:0.5",
    "16e2a,h=16,router=content_blind,load=hot:2:0.6",
    "4e2a,h=16,router=content_blind,load=1/2/3/4",
]


@pytest.mark.parametrize("text", SPECS)
def test_a_spec_with_a_load_reads_back(text: str) -> None:
    scenario = parse_scenario(text, default=REFERENCE)
    assert str(scenario.model) == f"d=32,L=2,{text}"
    assert parse_scenario(str(scenario)) == scenario
    experts = scenario.model.feed_forward
    assert isinstance(experts, Experts)
    assert sum(experts.target_load) == pytest.approx(1)
    assert len(experts.target_load) == experts.total


@pytest.mark.parametrize("text", SPECS)
def test_a_load_needs_no_balance_to_be_named(text: str) -> None:
    short = text.replace(",balance=selection_bias", "")
    assert parse_scenario(short, default=REFERENCE) == parse_scenario(text, default=REFERENCE)


def test_no_load_is_no_target() -> None:
    assert Experts(total=16, activated=2, hidden=8).target_load == ()
    assert "load" not in str(Experts(total=16, activated=2, hidden=8))


def test_a_target_keeps_its_references_load_until_it_has_its_own() -> None:
    reference = parse_scenario("16e2a,h=16,load=zipf:1", default=REFERENCE)
    loads = [
        parse_scenario(text, default=reference).model.feed_forward
        for text in ("d=64", "32e2a", "load=zipf:0.5", "router=softmax_norm")
    ]
    assert [str(e).partition(",h=16")[2] for e in loads] == [
        ",balance=selection_bias,load=zipf:1",
        ",balance=selection_bias,load=zipf:1",
        ",balance=selection_bias,load=zipf:0.5",
        ",router=softmax_norm,balance=selection_bias,load=zipf:1",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("16e2a,load=zipf:2", r"expert 0 has the share 0\.6.* 1/a = 0\.5"),
        ("16e2a,balance=none,load=zipf:1", "is reached by balance=selection_bias: set it"),
        ("16e2a,balance=auxiliary_loss,load=zipf:1", "is reached by balance=selection_bias: set it"),
        ("16e2a,router=expert_choice,load=zipf:1", "load 'zipf:1' has no meaning with router 'expert_choice'"),
        ("8e4a2g,load=4/4/4/4/1/1/1/1", r"group 0 has the share 0\.8"),
        ("d=64,load=zipf:1", "gives load, but its feed-forward is dense"),
    ],
)
def test_a_load_that_cannot_be(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        parse_scenario(text, default=REFERENCE)
    assert "\n" not in str(caught.value)
