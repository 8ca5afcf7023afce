"""The routers and blocks of transformers get the right verdicts: no false alarms, and real defects are named."""

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
class Expected:
    """The expected results: which checks fail and why, which warn, and the factor R if one transfers."""

    expected: Mapping[str, str] = field(default_factory=dict)
    warned: frozenset[str] = frozenset({TOP1, GATE})
    factor: str = "fits with R = a"

    def __post_init__(self) -> None:
        assert ("fit-scale" in self.expected) == (self.factor == "no constant")


NORMALIZED = Expected()
UNNORMALIZED = Expected(expected=FALLS, warned=frozenset({GATE}), factor="no constant")
DEEPSEEK = Expected(expected=INFEASIBLE, warned=frozenset({TOP1}), factor="fits with R = a / 2.5")
LLAMA4 = Expected(expected=FREE, warned=frozenset(), factor="no constant")
ROUTERS = {
    "mixtral_router": NORMALIZED,
    "mixtral_loss_router": Expected(expected=POOLED),
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
BLOCKS = {name.replace("router", "block"): expected for name, expected in ROUTERS.items() if "loss" not in name} | {
    "mixtral_grouped_block": NORMALIZED,
    "mixtral_jitter_block": Expected(expected=JITTER, warned=frozenset({TOP1, GATE, "train-eval"})),
    "llama4_block": Expected(
        expected=FREE | {"fit-output": "weights multiply the experts' input"}, warned=frozenset(), factor="no constant"
    ),
}
FIXED_SIZES = {"llama4_block", "mixtral_grouped_block"}
"""Blocks that call each expert on as many tokens as there are, or need no values: they can be captured."""
SAME_BLOCKS = {"qwen3_unnormalized_block", "olmoe_normalized_block"}
"""They differ from another block of their family only in the router, which is checked by itself."""


def test_every_factory_has_its_verdict() -> None:
    named = {name for name in vars(hugging_face) if name.endswith(("_router", "_block")) and not name.startswith("_")}
    assert named == {*ROUTERS, *BLOCKS}


@needs_transformers
@pytest.mark.parametrize("name", ROUTERS)
def test_routers(name: str) -> None:
    judge("router", name, ROUTERS[name], ())


@needs_transformers
@pytest.mark.parametrize("name", sorted(set(BLOCKS) - SAME_BLOCKS))
def test_blocks(name: str) -> None:
    expected = BLOCKS[name]
    loops = frozenset() if name in FIXED_SIZES else {"capture"}  # over the experts that take tokens
    # a = 1 is checked on the routers
    judge("block", name, expected, WIDE if "grouped" in name else SHORT, expected.warned - {TOP1} | loops)


def judge(kind, name, expected, shapes, warned=None) -> None:  # type: ignore[no-untyped-def]
    results = check_candidate(
        kind, f"{MODULE}:{name}", seeds=SEEDS, shapes=shapes, expected=expected.expected, time_limit=120.0
    )
    broken = [r for r in results if r.broken or r.outcome == "unknown"]
    alarms = [r for r in broken if not r.warning]
    assert not alarms, "\n".join(r.explain() for r in alarms)
    assert {r.check for r in broken} == (expected.warned if warned is None else warned)
    (scale,) = (r for r in results if r.check == "fit-scale")
    assert expected.factor in scale.measured


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
    for block, claim, measured in (
        ("llama4_block", {"weight_sum": "free"}, "input"),
        ("deepseek_v3_block", {"shared": True, "weight_sum": 2.5, "route_scale": 2.5}, "the scale 2.5 is not applied"),
    ):
        (found,) = check_block(f"{MODULE}:{block}", claim=claim, only=["recomposition"], seeds=1)
        assert found.outcome == "failed"
        assert measured in found.measured


@needs_transformers
def test_at_one_activated_expert_a_router_with_normalized_weights_does_not_train() -> None:
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
