import re
from dataclasses import replace

import pytest

from mue_check import SpecError, get_rule
from mue_check.axes import heldout_ladder
from mue_check.catalog import AXES, TIERS, get_tier, parse_axes
from mue_check.judge.drift import MIN_SEEDS
from mue_check.judge.laws import LAWS
from mue_check.routing.variants import BALANCES, VARIANTS
from mue_check.rules import RULES
from mue_check.spec import Experts, Scenario
from mue_check.spec_text import parse_scenario

QUESTIONS = ("drift", "scales", "speed", "tune_once", "noise")


def all_ladders(tier):
    return [ladder for axis in AXES for question in QUESTIONS for ladder in tier.ladders(axis, question)]


@pytest.mark.parametrize("tier", TIERS.values(), ids=list(TIERS))
@pytest.mark.parametrize("axis", AXES)
def test_every_ladder_can_be_built_and_prescribed(tier, axis: str) -> None:
    ladders = [ladder for question in QUESTIONS for ladder in tier.ladders(axis, question)]
    assert ladders
    for ladder in ladders:
        assert ladder.axis == axis
        assert ladder.targets
        assert len({rung.label for rung in ladder.targets}) == len(ladder.targets)
        # part of a file's name, and of the -k of the command that asks again
        assert all(re.fullmatch(r"[\w-]+", rung.label) for rung in ladder.rungs)
        sizes = [rung.size for rung in ladder.rungs]
        assert sizes == sorted(set(sizes))
        assert min(sizes) >= 1
        for corpus in (*tier.corpora, "tokens.bin"):
            task = tier.task(corpus, ladder.regime)
            scenarios = [Scenario.of(rung.model, rung.train(task.train)) for rung in ladder.rungs]
            for rule in RULES:
                for scenario in scenarios:
                    get_rule(rule).prescribe(scenarios[0], scenario).values(task.base)


@pytest.mark.parametrize("tier", TIERS.values(), ids=list(TIERS))
def test_every_ladder_of_scales_has_its_laws(tier) -> None:
    names = {ladder.name for axis in AXES for ladder in tier.ladders(axis, "scales")}
    assert names <= set(LAWS)
    assert MIN_SEEDS <= tier.seeds <= tier.max_seeds


def test_a_name_is_one_ladder() -> None:
    for tier in TIERS.values():
        for question in QUESTIONS:
            names = [ladder.name for axis in AXES for ladder in tier.ladders(axis, question)]
            assert len(names) == len(set(names))
        assert tier.ladder("depth") in tier.ladders("depth")
        assert tier.ladder("no such") is None


def mixtures(axis: str, tier: str = "cpu") -> list[Experts]:
    ladder = get_tier(tier).ladders(axis)[0]
    return [r.model.feed_forward for r in ladder.rungs if isinstance(r.model.feed_forward, Experts)]


def test_each_axis_changes_one_thing() -> None:
    activated = mixtures("activated_experts")
    assert [e.activated for e in activated] == [2, 8]
    assert {(e.total, e.hidden) for e in activated} == {(16, 32)}
    capacity = mixtures("capacity")
    assert [e.total for e in capacity] == [8, 256]
    assert {(e.activated, e.hidden) for e in capacity} == {(2, 8)}
    granularity = mixtures("granularity")
    assert len({e.active_width for e in granularity}) == len({e.activated / e.total for e in granularity}) == 1
    assert len({e.hidden for e in granularity}) == 2
    assert [e.shared for e in mixtures("shared_experts")] == [0, 2]


def test_batch_and_duration_change_what_they_say() -> None:
    tier = get_tier("cpu")
    train = tier.task("markov", "noise").train
    fixed_tokens, fixed_steps = ([rung.train(train) for rung in ladder.rungs] for ladder in tier.ladders("batch"))
    assert len({t.steps * t.tokens_per_step for t in fixed_tokens}) == 1
    assert len({t.steps for t in fixed_steps}) == 1
    assert [t.batch // train.batch for t in fixed_steps] == [1, 2, 4]
    (duration,) = tier.ladders("duration")
    assert [rung.train(train).steps // train.steps for rung in duration.rungs] == [1, 2, 4]
    assert [rung.residual for rung in duration.rungs] == [0, 0.5, 1]
    assert {rung.train(train).warmup / rung.train(train).steps for rung in duration.rungs} == {0.1}


def test_a_batch_that_is_no_whole_number_is_refused() -> None:
    rung = replace(get_tier("cpu").ladders("batch")[0].targets[0], steps=1 / 3)
    with pytest.raises(SpecError, match=r"B2: steps becomes 133\.3"):
        rung.train(get_tier("cpu").task("markov", "noise").train)


ROUTINGS = [(name, b) for name, router in VARIANTS.items() for b in BALANCES if router.scored or b == "none"]


@pytest.mark.parametrize(("router", "balance"), ROUTINGS)
@pytest.mark.parametrize("tier", TIERS)
def test_every_ladder_takes_every_router_or_is_left_out(router: str, balance: str, tier: str) -> None:
    for ladder in all_ladders(get_tier(tier)):
        routed = ladder.with_routing(router, balance)
        if routed is None:
            # what limits the active experts or adds to them asks another question of these; the laboratory has its own
            limits = VARIANTS[router].fixed_activated or VARIANTS[router].shared
            assert limits or ladder.name == "routing_hybrids" or ladder.axis == "sigma0"
            continue
        for rung in routed.rungs:
            experts = rung.model.feed_forward
            if isinstance(experts, Experts) and (router, balance) != ("sigmoid_norm", "none"):
                assert (experts.router, experts.balance) == (router, balance)
                assert "per-group" not in rung.label
                named = [part for part in re.split("[-]", rung.label) if re.fullmatch(r"\d+e\d+a.*", part)]
                assert named in ([], [experts.notation])
        assert len({rung.label for rung in routed.targets}) == len(routed.targets) > 0
        assert [rung.size for rung in routed.rungs] == sorted({rung.size for rung in routed.rungs})


def test_the_default_routing_leaves_a_ladder_as_it_is() -> None:
    ladder = get_tier("cpu").ladders("routing_hybrids")[0]
    assert ladder.with_routing("sigmoid_norm", "none") == ladder
    assert {r.model.feed_forward.router for r in ladder.targets} == {"sigmoid_norm", "sigmoid_group_norm"}


def routed(axis: str, router: str, at: int = 0) -> list[str] | None:
    ladder = get_tier("cpu").ladders(axis)[at]
    found = ladder.with_routing(router, "none")
    return [rung.label for rung in found.rungs] if found else None


def test_a_variant_keeps_what_a_ladder_is_about() -> None:
    assert routed("activated_experts", "switch") is None  # it has but one active expert
    assert routed("granularity", "switch") is None
    assert routed("bridges", "switch", at=3) is None  # its R would no longer be 16
    assert routed("capacity", "switch") == ["8e1a", "256e1a"]
    assert routed("capacity", "deepseek_v3") == ["8e2a1s", "256e2a1s"]
    assert routed("granularity", "deepseek_v3") is None  # a shared expert of each width is another active width
    assert routed("routing_hybrids", "softmax_norm") == ["16e4a", "16e4a4g", "16e4a2g1s"]


def test_a_composite_differs_from_its_reference() -> None:
    reference = parse_scenario("d=32,L=4,H=32,B=256,T=200")
    with pytest.raises(SpecError, match="is the reference itself"):
        heldout_ladder(reference, parse_scenario("d=32", default=reference))
    slower, same = (
        heldout_ladder(reference, parse_scenario(text, default=reference), own=True) for text in ("T=400", "d=64,8e2a")
    )
    assert slower.uses == {"drift"}
    assert same.uses == {"drift", "scales"}
    assert slower.targets[0].label != same.targets[0].label


def test_axes_of_the_command_line() -> None:
    with pytest.raises(SpecError, match="unknown axis 'hight'"):
        parse_axes("width, hight")
    assert parse_axes(None) == tuple(AXES)
    assert parse_axes(" width ") == ("width",)
