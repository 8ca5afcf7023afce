"""The ladders of the sigma_0 laboratory at each tier."""

import re
from dataclasses import replace

from mue_check.axes import Ladder
from mue_check.catalog import get_tier
from mue_check.routing.variants import BALANCES, VARIANTS
from mue_check.sigma0.ladders import load_label, load_use
from mue_check.spec import Dense, Experts

ROUTINGS = [
    (name, balance)
    for name, router in VARIANTS.items()
    for balance in BALANCES
    if (router.scored or balance == "none") and (name, balance) != ("sigmoid_norm", "none")
]


def laboratory(question: str = "drift", tier: str = "lab") -> dict[str, Ladder]:
    return {ladder.name: ladder for ladder in get_tier(tier).ladders("sigma0", question)}


def experts_of(ladder: Ladder) -> list[Experts]:
    return [r.model.feed_forward for r in ladder.targets if isinstance(r.model.feed_forward, Experts)]


def test_the_laboratory_has_its_ladders() -> None:
    assert laboratory(tier="smoke") == laboratory(tier="cpu") == laboratory(tier="gpu") == {}
    assert set(laboratory()) == {
        *("load", "load_content_blind", "load_heldout", "load_scaled"),
        *("sigma0_batch", "sigma0_activated", "sigma0_capacity"),
    }
    assert laboratory("scales") == laboratory("speed") == {}
    for tier in ("smoke", "cpu", "lab", "gpu"):
        found = laboratory("noise", tier)
        routers = {ladder.steered_router for ladder in found.values()}
        assert routers >= {"sigmoid_norm", "content_blind"}  # the finding and its control
        assert routers == {"sigmoid_norm", "content_blind"} or tier == "lab"
        for ladder in found.values():
            assert ladder.uses == {"noise"}
            assert isinstance(ladder.reference.model.feed_forward, Dense)
            # one mixture, and what is asked of it is its load alone
            assert len({replace(e, load="", balance="none") for e in experts_of(ladder)}) == 1


def test_a_load_ladder_changes_the_load_alone() -> None:
    for name in ("load", "load_content_blind", "load_heldout"):
        ladder = laboratory()[name]
        rungs = [r.model.feed_forward for r in ladder.rungs]
        assert len({replace(e, load="") for e in rungs if isinstance(e, Experts)}) == 1
        assert {r.load_scaling for r in ladder.rungs} == {0}
        assert isinstance(rungs[0], Experts)
        assert rungs[0].load == "uniform"
        assert load_use(ladder.name) == ("heldout" if name == "load_heldout" else "fit")
    assert not {e.load for e in experts_of(laboratory()["load"])} & {
        e.load for e in experts_of(laboratory()["load_heldout"])
    }


def test_the_causal_probe_is_the_load_ladder_with_scaled_steps() -> None:
    probe, plain = laboratory()["load_scaled"], laboratory()["load"]
    assert load_use(probe.name) == "probe"
    assert probe.reference == plain.reference
    assert [(r.label, r.load_scaling) for r in probe.targets] == [
        ("zipf-1-scaled-0_5", 0.5),
        ("zipf-1-scaled-1", 1.0),
        ("zipf-1_5-scaled-0_5", 0.5),
        ("zipf-1_5-scaled-1", 1.0),
    ]
    assert {r.model for r in probe.targets} < {r.model for r in plain.targets}


def test_other_ladders_of_sigma0_have_an_even_load() -> None:
    for name in ("sigma0_batch", "sigma0_activated", "sigma0_capacity"):
        assert {e.load for e in experts_of(laboratory()[name])} == {"uniform"}
    task = get_tier("lab").task("markov")
    trains = [r.train(task.train) for r in laboratory()["sigma0_batch"].rungs]
    assert [t.batch // task.train.batch for t in trains] == [1, 2, 4]
    assert len({t.steps for t in trains}) == 1
    assert laboratory()["sigma0_activated"].reference.model.feed_forward == Dense(hidden=32)


def test_loads_that_are_not_feasible_are_left_out() -> None:
    loads = {name: [e.load for e in experts_of(ladder)] for name, ladder in laboratory("noise").items()}
    assert loads["noise-d32-16e2a-sigmoid_norm"] == ["uniform", "zipf:0.5", "zipf:1", "zipf:1.5"]
    # 1/a is 0.5 for two of 8 experts and 0.25 for four of 32
    assert loads["noise-d32-8e2a-sigmoid_norm"] == ["uniform", "zipf:0.5", "zipf:1"]
    assert loads["noise-d32-32e4a-sigmoid_norm"] == ["uniform", "zipf:0.5", "zipf:1"]
    assert loads["noise-d32-16e1a-switch"] == ["uniform", "zipf:0.5", "zipf:1", "zipf:1.5"]
    for name, ladder in laboratory("noise").items():
        natural = name.endswith("-natural")
        assert (loads[name] == [""]) == natural
        assert (ladder.steered_router is None) == natural


def test_labels_of_loads_are_fit_for_a_tests_id() -> None:
    assert [load_label(load) for load in ("uniform", "zipf:0.5", "hot:2:0.6")] == ["uniform", "zipf-0_5", "hot-2-0_6"]
    vectors = [load_label(load) for load in ("1/2/3", "1/2/4")]
    assert all(re.fullmatch(r"load-[0-9a-f]{6}", label) for label in vectors)
    assert vectors[0] != vectors[1]


def test_another_routing_leaves_the_laboratory_out() -> None:
    for ladder in (*laboratory("drift").values(), *laboratory("noise").values()):
        assert ladder.with_routing("sigmoid_norm", "none") == ladder
        assert not any(ladder.with_routing(*routing) for routing in ROUTINGS)
