"""The routers and blocks of transformers get the verdicts they deserve: no false alarm, true defects by name."""

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
import torch

from mue_check.conformance.api import check_block, check_candidate, check_router
from mue_check.conformance.result import verdict_of
from mue_check.errors import ClaimError
from mue_check.judge.verdict import Verdict
from mue_check.mutants.routing import hugging_face
from mue_check.routing.factory import SHAPES

MODULE = hugging_face.__name__
SEEDS = 3
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs transformers: pip install 'mue_check[hf]'"
)
SHORT = SHAPES[:2]
WIDE = tuple(replace(shape, d=40, f=16) for shape in SHORT)
"""Every width a multiple of 8: the grouped product takes no other."""
TOP1, GATE = "router-gradient-top1", "fit-gate"
FALLS = {"fit-scale": "probabilities as they are: their sum falls with E"}
POOLED = {"aux-layers": "load_balancing_loss_func adds the layers up before the product (#31464)"}
INFEASIBLE = {"group-infeasible": "a above what the groups hold takes experts at -inf (#48647)"}
JITTER = {"input-mutation": "the jitter is written into the block's input (#33969)"}
FREE = {"fit-scale": "a sum of sigmoids grows with a"}


@dataclass(frozen=True, kw_only=True)
class Deserved:
    """What a candidate must be told: which checks fail and why, which warn, and the factor R where one carries over."""

    expected: Mapping[str, str] = field(default_factory=dict)
    warned: frozenset[str] = frozenset({TOP1, GATE})
    factor: str = "fits with R = a"

    def __post_init__(self) -> None:
        assert ("fit-scale" in self.expected) == (self.factor == "no constant")


NORMALIZED = Deserved()
UNNORMALIZED = Deserved(expected=FALLS, warned=frozenset({GATE}), factor="no constant")
DEEPSEEK = Deserved(expected=INFEASIBLE, warned=frozenset({TOP1}), factor="fits with R = a / 2.5")
LLAMA4 = Deserved(expected=FREE, warned=frozenset(), factor="no constant")
ROUTERS = {
    "mixtral_router": NORMALIZED,
    "mixtral_loss_router": Deserved(expected=POOLED),
    "qwen3_router": NORMALIZED,
    "qwen3_unnormalized_router": UNNORMALIZED,
    "qwen2_router": UNNORMALIZED,
    "olmoe_router": UNNORMALIZED,
    "olmoe_normalized_router": NORMALIZED,
    "deepseek_v3_router": DEEPSEEK,
    "gpt_oss_router": NORMALIZED,
    "granite_router": NORMALIZED,
    "llama4_router": LLAMA4,
}
BLOCKS = {name.replace("router", "block"): deserved for name, deserved in ROUTERS.items() if "loss" not in name} | {
    "mixtral_grouped_block": NORMALIZED,
    "mixtral_jitter_block": Deserved(expected=JITTER, warned=frozenset({TOP1, GATE, "train-eval"})),
    "llama4_block": Deserved(
        expected=FREE | {"fit-output": "weights multiply the experts' input"}, warned=frozenset(), factor="no constant"
    ),
}
FIXED_SIZES = {"llama4_block", "mixtral_grouped_block"}
"""Blocks that call each expert on as many tokens as there are, or need no values: they can be captured."""
SAME_BLOCKS = {"qwen3_unnormalized_block", "olmoe_normalized_block"}
"""Apart from the other of their family by the router alone, which is asked by itself."""


def test_every_factory_has_its_verdict() -> None:
    named = {name for name in vars(hugging_face) if name.endswith(("_router", "_block")) and not name.startswith("_")}
    assert named == {*ROUTERS, *BLOCKS}


@needs_transformers
@pytest.mark.parametrize("name", ROUTERS)
def test_routers_get_what_they_deserve(name: str) -> None:
    judge("router", name, ROUTERS[name], ())


@needs_transformers
@pytest.mark.parametrize("name", sorted(set(BLOCKS) - SAME_BLOCKS))
def test_blocks_get_what_they_deserve(name: str) -> None:
    deserved = BLOCKS[name]
    loops = frozenset() if name in FIXED_SIZES else {"capture"}  # over the experts that take tokens
    # a = 1 is asked of the routers
    judge("block", name, deserved, WIDE if "grouped" in name else SHORT, deserved.warned - {TOP1} | loops)


def judge(kind, name, deserved, shapes, warned=None) -> None:  # type: ignore[no-untyped-def]
    results = check_candidate(
        kind, f"{MODULE}:{name}", seeds=SEEDS, shapes=shapes, expected=deserved.expected, time_limit=120.0
    )
    broken = [r for r in results if r.broken or r.outcome == "unknown"]
    alarms = [r for r in broken if not r.warning]
    assert not alarms, "\n".join(r.explain() for r in alarms)
    assert {r.check for r in broken} == (deserved.warned if warned is None else warned)
    (scale,) = (r for r in results if r.check == "fit-scale")
    assert deserved.factor in scale.measured


@needs_transformers
def test_verdicts_without_expectations() -> None:
    for factory, claim, fit in (
        ("granite_router", Verdict.PASS, Verdict.PASS),
        ("olmoe_router", Verdict.PASS, Verdict.FAIL),
        ("deepseek_v3_router", Verdict.FAIL, Verdict.PASS),
    ):
        results = check_router(f"{MODULE}:{factory}", seeds=1, shapes=SHAPES[:1])
        assert (verdict_of(results, "claim"), verdict_of(results, "fit")) == (claim, fit)


@needs_transformers
def test_a_wrong_claim_of_a_right_router_is_seen() -> None:
    for wrong, check in (({"gate": "sigmoid"}, "gate"), ({"gate": "softmax", "weight_sum": 2.5}, "weight-sum")):
        results = check_router(f"{MODULE}:mixtral_router", claim=wrong, only=[check], seeds=1)
        assert [r.outcome for r in results] == ["failed"]
    (found,) = check_block(f"{MODULE}:llama4_block", claim={"weight_sum": "free"}, only=["recomposition"], seeds=1)
    assert found.outcome == "failed"
    assert "input" in found.measured


@needs_transformers
def test_who_asks_for_one_expert_is_told_that_normalized_weights_do_not_train() -> None:
    for factory, outcome in (("mixtral_router", "failed"), ("olmoe_router", "passed")):
        (found,) = check_router(f"{MODULE}:{factory}", only=["router-gradient"], shapes=[SHAPES[2]], seeds=1)
        assert found.outcome == outcome


@needs_transformers
def test_weights_are_the_librarys_init() -> None:
    torch.manual_seed(0)
    block = hugging_face.gpt_oss_block(32, 16, 64, 2)
    for name, parameter in block.named_parameters():
        expected = 0.0 if name.endswith("proj_bias") else 0.2
        assert float(parameter.std()) == pytest.approx(expected, rel=0.3), name


def test_without_transformers_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.models.mixtral.modeling_mixtral", None)
    with pytest.raises(ClaimError, match=r"^mixtral needs transformers 5: pip install 'mue_check\[hf\]'"):
        hugging_face.mixtral_router(23, 7, 2)  # a size that no other test has cached
