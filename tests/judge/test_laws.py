"""The laws of each ladder have the published exponents."""

import importlib
import math

import pytest

from mue_check.judge import laws as module
from mue_check.judge.law import Law

HIDDEN = ("attention_qkv", "attention_out", "ffn_up", "ffn_gate", "ffn_down", "router")
HIDDEN += ("expert_up", "expert_gate", "expert_down", "shared_up", "shared_gate", "shared_down")
UNSCALED = ("token_embedding", "position_embedding", "norm_gain")
BRANCHES = ("attention_branch", "ffn_branch")


@pytest.fixture
def laws() -> dict[str, dict[str, Law]]:
    """By ladder and name; made anew, so that mutation testing sees the functions that make them."""
    made = importlib.reload(module).LAWS
    named = {ladder: {law.name: law for law in found} for ladder, found in made.items()}
    assert {ladder: len(found) for ladder, found in named.items()} == {k: len(found) for k, found in made.items()}
    return named


def shape(law: Law) -> tuple[str, str, int, str, float, float, str]:
    return law.coordinate, law.quantity, law.step, law.form, law.expected, law.tolerance, law.over_blocks


def slope(coordinate: str, quantity: str, step: int, expected: float, tolerance: float) -> tuple[object, ...]:
    return coordinate, quantity, step, "exponent", expected, tolerance, "rms"


@pytest.mark.parametrize("ladder", ["width", "width_of_mixture"])
def test_exponents_against_width(laws: dict[str, dict[str, Law]], ladder: str) -> None:
    """Tensor Programs V: activations keep moving, hidden weights are drawn as d^-1/2 and step as d^-1."""
    found = laws[ladder]
    mixture = ladder == "width_of_mixture"
    moving = ("logits", "residual", *BRANCHES, *(["router_logits"] if mixture else []))
    for name in moving:
        assert shape(found.pop(f"{name} change")) == slope(name, "change", 5, 0.0, 0.25)
    assert shape(found.pop("logits rms at init")) == slope("logits", "rms", 0, -0.5, 0.15)
    hidden = (*HIDDEN[:2], *(HIDDEN[5:] if mixture else HIDDEN[2:5]))
    for roles, init, step in ((UNSCALED, 0.0, 0.0), (hidden, -0.5, -1.0)):
        for role in roles:
            weight = f"weight.{role}"
            assert shape(found.pop(f"{weight} rms at init")) == slope(weight, "rms", 0, init, 0.05)
            assert shape(found.pop(f"{weight} change at step 1")) == slope(weight, "change", 1, step, 0.05)
    assert not found


def test_exponents_against_the_number_of_heads(laws: dict[str, dict[str, Law]]) -> None:
    assert [shape(law) for law in laws["width_of_heads"].values()] == [
        slope("attention_logits", "rms", 0, -0.5, 0.15),
        slope("logits", "change", 5, 0.0, 0.25),
        slope("residual", "change", 5, 0.0, 0.25),
    ]


def test_exponents_against_depth(laws: dict[str, dict[str, Law]]) -> None:
    """CompleteP with alpha = 1: each of L blocks contributes 1 / L."""
    found = list(laws["depth"].values())
    assert [shape(law) for law in found] == [
        slope("logits", "change", 5, 0.0, 0.25),
        slope("residual", "change", 5, 0.0, 0.25),
        *(slope(name, "rms", 0, -1.0, 0.1) for name in BRANCHES),
        *(slope(name, "change", 5, -1.0, 0.25) for name in BRANCHES),
    ]
    assert {law.source for law in found[2:]} == {"arXiv 2505.01618 Table 1, alpha = 1"}
    assert {law.source for law in found[:2]} == {"arXiv 2203.03466 appendix J; arXiv 2605.23893"}


AT_INIT = ("ffn_branch", "rms", 0, "ratio", 0.0, pytest.approx(math.log2(1.05), abs=1e-4), "rms")
MOVES = ("change", 5, "ratio", 0.0, pytest.approx(math.log2(1.5), abs=1e-4), "rms")


@pytest.mark.parametrize("ladder", ["activated_experts", "capacity", "granularity"])
def test_the_branch_of_a_mixture_with_a_size(laws: dict[str, dict[str, Law]], ladder: str) -> None:
    first, second = laws[ladder].values()
    assert shape(first) == AT_INIT
    assert shape(second) == slope("ffn_branch", "change", 5, 0.0, 0.25)


@pytest.mark.parametrize("ladder", ["shared_experts", "routing_hybrids", "bridge_1", "bridge_2", "bridges_composed"])
def test_the_branch_of_a_mixture_without_a_size(laws: dict[str, dict[str, Law]], ladder: str) -> None:
    first, second = laws[ladder].values()
    assert shape(first) == AT_INIT
    assert (first.name, second.name) == ("branch scale at init", "ffn_branch change")
    assert shape(second) == ("ffn_branch", *MOVES)
    assert (first.source, second.source) == (
        "arXiv 2605.23893, Bridges I and II: A, R and the down-projection's init preserve the branch",
        "arXiv 2203.03466 appendix J; arXiv 2605.23893",
    )


def test_the_composite_target(laws: dict[str, dict[str, Law]]) -> None:
    """It differs in depth too, so the shares of its blocks are summed."""
    found = list(laws["heldout"].values())
    assert [law.name for law in found[:2]] == ["attention_branch scale at init", "ffn_branch scale at init"]
    assert [shape(law) for law in found] == [
        *((name, *AT_INIT[1:-1], "sum") for name in BRANCHES),
        ("logits", *MOVES),
        ("residual", *MOVES),
    ]


def test_every_ladder_has_laws(laws: dict[str, dict[str, Law]]) -> None:
    assert len(laws) == 13
    assert module.COORDINATE_STEPS == (0, 1, 5)


@pytest.mark.parametrize("ladder", ["width", "width_of_mixture"])
def test_exponents_of_a_diffusion_transformer(laws: dict[str, dict[str, Law]], ladder: str) -> None:
    """Its blocks are those of the language model; its ends and its conditioning are its own."""
    found = {law.name: law for law in module.DIFFUSION_LAWS[ladder]}
    assert shape(found.pop("velocity rms")) == slope("velocity", "rms", 5, 0.0, 0.25)
    assert shape(found.pop("velocity rms at init")) == slope("velocity", "rms", 0, -0.5, 0.15)
    for name in ("conditioning", "modulation", "final_modulation"):
        assert shape(found.pop(f"{name} change")) == slope(name, "change", 5, 0.0, 0.25)
    inputs = ("patch_embedding", "timestep_in", "label_embedding", "scale_shift_table")
    for roles, init, step in ((inputs, 0.0, 0.0), (("timestep_out", "modulation"), -0.5, -1.0)):
        for role in roles:
            weight = f"weight.{role}"
            assert shape(found.pop(f"{weight} rms at init")) == slope(weight, "rms", 0, init, 0.05)
            assert shape(found.pop(f"{weight} change at step 1")) == slope(weight, "change", 1, step, 0.05)
    assert shape(found.pop("weight.bias change at step 1")) == slope("weight.bias", "change", 1, 0.0, 0.05)
    of_language = ("logits", *(f"weight.{role}" for role in UNSCALED))
    assert found == {name: law for name, law in laws[ladder].items() if not name.startswith(of_language)}


def test_zeroed_gates_are_measured_later() -> None:
    assert module.ZERO_GATED_STEPS == (0, 4, 8)
    for ladder, drawn in module.DIFFUSION_LAWS.items():
        zeroed = module.ZERO_GATED_LAWS[ladder]
        kept = [law for law in drawn if law.step or law.coordinate not in ZERO_AT_INIT]
        assert [shape(law)[:2] for law in zeroed] == [shape(law)[:2] for law in kept]
        assert [law.step for law in zeroed] == [{0: 0, 1: 4, 5: 8}[law.step] for law in kept]
        assert [law.name for law in zeroed] == [law.name.replace("step 1", "step 4") for law in kept]


ZERO_AT_INIT = ("velocity", "weight.modulation", "weight.scale_shift_table")
