"""The laws of each ladder have the published exponents."""

import importlib
import math
from collections.abc import Sequence

import pytest

from mue_check.judge import laws as module
from mue_check.judge.law import Law

UNSCALED = ("token_embedding", "position_embedding", "norm_gain")
ATTENTION = ("attention_qkv", "attention_out")
DENSE = (*ATTENTION, "ffn_up", "ffn_gate", "ffn_down")
MIXTURE = (
    *ATTENTION,
    "router",
    *(f"{kind}_{matrix}" for kind in ("expert", "shared") for matrix in ("up", "gate", "down")),
)
INPUTS = ("patch_embedding", "timestep_in", "label_embedding", "scale_shift_table")
CONDITIONING = ("timestep_out", "modulation")
BRANCHES = ("attention_branch", "ffn_branch")
MOVING = ("residual", *BRANCHES)
Shape = tuple[object, ...]


def shapes(laws: Sequence[Law]) -> set[Shape]:
    """What the laws say, without their names and sources; all different."""
    found = {(w.coordinate, w.quantity, w.step, w.form, w.expected, round(w.tolerance, 3), w.over_blocks) for w in laws}
    assert len(found) == len({law.name for law in laws}) == len(laws)
    return found


def slope(coordinate: str, quantity: str, step: int, expected: float, tolerance: float) -> Shape:
    return coordinate, quantity, step, "exponent", expected, tolerance, "rms"


def moving(*names: str) -> set[Shape]:
    return {slope(name, "change", 5, 0.0, 0.25) for name in names}


def weights(*roles: str, init: float, step: float) -> set[Shape]:
    drawn = {slope(f"weight.{role}", "rms", 0, init, 0.05) for role in roles}
    return drawn | {slope(f"weight.{role}", "change", 1, step, 0.05) for role in roles}


def ratio(coordinate: str, factor: float, *, step: int, over_blocks: str = "rms") -> Shape:
    quantity = "change" if step else "rms"
    return coordinate, quantity, step, "ratio", 0.0, round(math.log2(factor), 3), over_blocks


AT_INIT = {ratio("ffn_branch", 1.05, step=0)}
LANGUAGE = moving("logits", *MOVING) | {slope("logits", "rms", 0, -0.5, 0.15)} | weights(*UNSCALED, init=0.0, step=0.0)
DIFFUSION = (
    {slope("velocity", "rms", 5, 0.0, 0.25), slope("velocity", "rms", 0, -0.5, 0.15)}
    | moving(*MOVING, "conditioning", "modulation", "final_modulation")
    | weights(*INPUTS, init=0.0, step=0.0)
    | weights(*CONDITIONING, init=-0.5, step=-1.0)
    | {slope("weight.bias", "change", 1, 0.0, 0.05)}
)
EXPECTED: dict[str, set[Shape]] = {
    # Tensor Programs V: activations keep moving, hidden weights are drawn as d^-1/2 and step as d^-1
    "width": LANGUAGE | weights(*DENSE, init=-0.5, step=-1.0),
    "width_of_mixture": LANGUAGE | moving("router_logits") | weights(*MIXTURE, init=-0.5, step=-1.0),
    "width_of_heads": moving("logits", "residual") | {slope("attention_logits", "rms", 0, -0.5, 0.15)},
    # CompleteP with alpha = 1: each of L blocks contributes 1 / L
    "depth": moving("logits", "residual")
    | {slope(name, "rms", 0, -1.0, 0.1) for name in BRANCHES}
    | {slope(name, "change", 5, -1.0, 0.25) for name in BRANCHES},
    **dict.fromkeys(("activated_experts", "capacity", "granularity"), AT_INIT | moving("ffn_branch")),
    **dict.fromkeys(
        ("shared_experts", "routing_hybrids", "bridge_1", "bridge_2", "bridges_composed"),
        AT_INIT | {ratio("ffn_branch", 1.5, step=5)},
    ),
    # it differs in depth too, so the shares of its blocks are summed
    "heldout": {ratio(name, 1.05, step=0, over_blocks="sum") for name in BRANCHES}
    | {ratio(name, 1.5, step=5) for name in ("logits", "residual")},
}


@pytest.mark.parametrize("ladder", EXPECTED)
def test_the_laws_of_a_ladder(ladder: str) -> None:
    laws = importlib.reload(module).LAWS  # made anew, so that mutation testing sees the functions that make them
    assert shapes(laws[ladder]) == EXPECTED[ladder]
    assert laws.keys() == EXPECTED.keys()
    assert all("arXiv" in law.source for law in laws[ladder])


def test_the_laws_of_a_diffusion_transformer() -> None:
    """Its blocks are those of the language model; its ends and its conditioning are its own."""
    assert shapes(module.DIFFUSION_LAWS["width"]) == DIFFUSION | weights(*DENSE, init=-0.5, step=-1.0)


def test_zeroed_gates_are_measured_later() -> None:
    zero = ("velocity", "weight.modulation", "weight.scale_shift_table")
    assert (module.COORDINATE_STEPS, module.ZERO_GATED_STEPS) == ((0, 1, 5), (0, 4, 8))
    for ladder, drawn in module.DIFFUSION_LAWS.items():
        kept = [law for law in drawn if law.step or law.coordinate not in zero]
        found = [(law.name, law.coordinate, law.step) for law in module.ZERO_GATED_LAWS[ladder]]
        later = {0: 0, 1: 4, 5: 8}
        assert found == [(law.name.replace("step 1", "step 4"), law.coordinate, later[law.step]) for law in kept]
