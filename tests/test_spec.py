from dataclasses import asdict

import pytest

from mue_check import Dense, Experts, ModelSpec, SpecError, TrainSpec, parse_scenario
from mue_check.spec import described


@pytest.mark.parametrize("text", ["128e8a1s", "128e8a4g1s", "16e4a", "16e4a2g1s", "1e1a", "8e8a"])
def test_notation_reads_what_it_prints(text: str) -> None:
    assert Experts.from_notation(text, hidden=4).notation == text


def test_notation_parts() -> None:
    experts = Experts.from_notation("128e8a4g1s", hidden=32)
    assert (experts.total, experts.activated, experts.groups, experts.shared) == (128, 8, 4, 1)
    assert experts.active_width == 9 * 32


def test_trivial_parts_are_left_out_when_printed() -> None:
    assert Experts.from_notation("16e4a1g0s", hidden=8).notation == "16e4a"


@pytest.mark.parametrize("text", ["", "8e", "e8a", "8e2a1s2g", "-8e2a", "8E2A", "8e2a1g1s1s"])
def test_bad_notation_names_the_form(text: str) -> None:
    with pytest.raises(SpecError, match="<N>e<a>a"):
        Experts.from_notation(text, hidden=8)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("4e8a", "at most N=4"),
        ("16e4a3g", "G=3 must divide N=16"),
        ("18e4a3g", "G=3 must divide a=4"),
        ("0e0a", "total=0"),
        ("16e0a", "activated=0"),
        ("16e4a0g", "groups=0"),
    ],
)
def test_impossible_experts(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Experts.from_notation(text, hidden=8)


def test_width_must_hold_whole_heads() -> None:
    with pytest.raises(SpecError, match=r"d=40 is not divisible by the head width dh=16"):
        ModelSpec(width=40, depth=1, feed_forward=Dense(hidden=40))


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "8"])
def test_sizes_are_whole_numbers(value: object) -> None:
    with pytest.raises(SpecError, match=r"Dense\.hidden"):
        Dense(hidden=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "says"), [({"warmup": 10}, "warmup=10"), ({"final_lr": 1.5}, "final_lr"), ({"steps": 0}, "steps")]
)
def test_bad_training(change: dict[str, float], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        TrainSpec(**{"steps": 10, "batch": 2, **change})  # type: ignore[arg-type]


def test_target_takes_what_it_leaves_out_from_its_reference() -> None:
    reference = parse_scenario("d=128,L=32,H=128,B=65536,T=25000")
    target = parse_scenario("d=1024,128e8a1s,T=100000", default=reference)
    assert target.model.depth == 32
    assert target.tokens_per_step == 65536
    assert isinstance(target.model.feed_forward, Experts)
    assert target.model.feed_forward.hidden == 1024
    assert parse_scenario("d=256", default=reference).model.feed_forward == Dense(hidden=128)


DIFFUSION = [
    "d=64,L=2,H=64,patch=2,B=1,T=1",
    "d=64,L=2,16e4a1s,h=32,dh=32,patch=3x2,gates=zero,labels=off,modulation=shared,B=512,T=200",
]


@pytest.mark.parametrize(
    "text",
    ["d=64,L=2,H=64,B=1,T=1", "d=64,L=2,16e4a2g1s,h=32,B=512,T=200", "d=64,L=2,8e2a,h=64,dh=32,B=1,T=1", *DIFFUSION],
)
def test_a_printed_scenario_reads_back(text: str) -> None:
    scenario = parse_scenario(text)
    assert parse_scenario(str(scenario)) == scenario


def test_toml_file(tmp_path) -> None:
    path = tmp_path / "target.toml"
    path.write_text('d = 64\nL = 2\nexperts = "16e4a"\nh = 32\n')
    assert parse_scenario(str(path)) == parse_scenario("d=64,L=2,16e4a,h=32")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("d=64,L=2", "lacks a feed-forward"),
        ("L=2,H=64", "lacks d"),
        ("d=64,L=2,H=64,q=1", "unknown key 'q'"),
        ("d=64,d=64,L=2,H=64", "appears twice"),
        ("d=x,L=2,H=64", "whole number"),
        ("d=64,L=2,H=64,8e2a", "choose one"),
        ("d=64,L=2,H=64,h=8", "gives both h"),
        ("d=64,L=2,8e2b", "not a notation"),
        ("nowhere.toml", "cannot be read"),
        ("d=64,L=2,H=64,patch=2x", "patch='2x' .*: must be an edge such as 2, or frames x edge"),
        ("d=64,L=2,H=64,patch=0", "DiffusionSpec.patch=0"),
        ("d=64,L=2,H=64,gates=zero", "gives gates, but no patch"),
        ("d=64,L=2,H=64,patch=2,gates=open", "must be zero or drawn"),
        ("", "lacks d"),
    ],
)
def test_bad_specs_say_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        parse_scenario(text)
    assert "\n" not in str(caught.value)


def test_router_and_balance_are_part_of_the_model() -> None:
    reference = parse_scenario("d=32,L=2,16e2a,h=8")
    target = parse_scenario("32e4a2g,router=moge,balance=selection_bias", default=reference)
    assert str(target.model) == "d=32,L=2,32e4a2g,h=8,router=moge,balance=selection_bias"
    assert parse_scenario("16e4a2g", default=target).model.feed_forward.router == "moge"
    assert target.model.feed_forward.weight_sum is None
    assert parse_scenario("8e4a2g,router=sigmoid_group_norm", default=reference).model.feed_forward.weight_sum == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("16e2a,router=best", "unknown router 'best': allowed are sigmoid_norm"),
        ("16e2a,balance=best", "unknown balance 'best': allowed are none"),
        ("16e2a,router=switch", "activates at most 1"),
        ("16e2a,router=expert_choice,balance=selection_bias", "'selection_bias' has no meaning with .*'expert_choice'"),
        ("16e2a,router=content_blind,balance=auxiliary_loss", "'auxiliary_loss' has no meaning with .*'content_blind'"),
        ("16e2a2g,router=deepseek_v3", "'deepseek_v3' does not take a/G of each group"),
        ("16e2a2g,router=expert_choice", "'expert_choice' does not take a/G of each group"),
        ("d=32,L=1,H=32,router=moge", "its feed-forward is dense"),
    ],
)
def test_a_router_that_cannot_be(text: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        parse_scenario(text, default=parse_scenario("d=32,L=2,H=32"))


def test_a_target_is_of_its_references_family() -> None:
    reference = parse_scenario("d=64,L=2,H=64,patch=3x2,gates=zero")
    target = parse_scenario("d=128,8e2a,h=16,labels=off", default=reference)
    assert str(target.model) == "d=128,L=2,8e2a,h=16,patch=3x2,gates=zero,labels=off"
    assert str(parse_scenario("patch=4,gates=drawn", default=target).model) == "d=128,L=2,8e2a,h=16,patch=4,labels=off"
    assert type(parse_scenario("d=128", default=parse_scenario("d=64,L=2,H=64")).model) is ModelSpec


def test_a_stored_model_is_described_as_its_family_prints_it() -> None:
    train = TrainSpec(steps=3, batch=2)
    for text in ("d=64,L=2,H=64", *DIFFUSION):
        model = parse_scenario(text).model
        assert described(asdict(model), asdict(train)) == f"{model},{train}"


def test_numbers_have_units_and_keys_have_the_names_of_configurations() -> None:
    short = parse_scenario("d=256,L=2,H=4000,dh=32,B=4000000,T=1500")
    assert parse_scenario("d_model=256,n_layers=2,d_ff=4k,head_dim=32,batch_tokens=4M,steps=1.5k") == short
    assert parse_scenario("B=4Mi", default=short).tokens_per_step == 2**22
    with pytest.raises(SpecError, match=r"unknown key 'd_modle' .did you mean 'd_model'"):
        parse_scenario("d_modle=64")
    with pytest.raises(SpecError, match="must be a whole number"):
        parse_scenario("d=1.5")
