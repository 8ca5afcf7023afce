"""What is found in blocks as people write them, and which check sees which mistake."""

import pytest
import torch
import torch.nn.functional as F

from mue_check.conformance.block_probe import form_of, open_block, read_routing
from mue_check.conformance.case import Case, Found
from mue_check.conformance.registry import all_checks
from mue_check.routing.claim import ExpertLayout, RoutingSpec
from mue_check.routing.factory import ONE_TOKEN, SHAPES, candidate_of
from tests.conformance import odd_blocks as odd

IDS = (
    "recomposition",
    "dense-equivalence",
    "empty-expert",
    "expert-gradient",
    "gradient-split",
    "experts-train",
    "expert-init",
    "shared-unscaled",
)
CPU = torch.device("cpu")
SOME = (SHAPES[1], SHAPES[2], SHAPES[4], ONE_TOKEN)
LEARNED: dict[tuple[object, str], Found] = {}


def found(factory, id, claim=None, *, seeds=1, shapes=SHAPES):
    """Every finding of a check."""
    candidate = candidate_of("block", factory, claim=claim or RoutingSpec())
    learned = LEARNED.setdefault((factory, str(claim)), Found())
    cases = [
        Case(candidate=candidate, shape=shape, seed=seed, device=CPU, found=learned)
        for shape in candidate.shapes(shapes)
        for seed in range(seeds)
    ]
    return [all_checks()[id].run(case) for case in cases]


SCALED = RoutingSpec(shared=True, route_scale=2.5)
RIGHT = {
    "plain": (odd.Plain, None),
    "declared": (odd.Plain, RoutingSpec(experts=ExpertLayout(up="up", gate="gate", down="down", axes="in_out"))),
    "inline": (odd.InlineGate, None),
    "strided": (odd.Strided, None),
    "zero_down": (odd.ZeroDown, None),
    "normed": (odd.Normed, None),
    "called": (odd.Called, None),
    "numbers_in_words": (odd.NumbersInWords, None),
    "float32": (odd.OnlyFloat32, None),
    "normalizes_later": (odd.NormalizesLater, None),
    "shared": (odd.Shared, SCALED),
}


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("name", RIGHT)
def test_right_blocks_pass(name, id):
    factory, claim = RIGHT[name]
    findings = found(factory, id, claim, shapes=SOME)
    wrong = [f for f in findings if f.status not in ("passed", "skipped")]
    assert not wrong, wrong[0]
    assert id == "shared-unscaled" or any(f.status == "passed" for f in findings)


def case(factory):
    return Case(candidate=candidate_of("block", factory, claim=RoutingSpec()), shape=SHAPES[0], seed=0, device=CPU)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (odd.Plain, "silu, gate in gate, up in up, down in down"),
        (odd.InlineGate, "gelu, up in experts.{}.0.weight, down in experts.{}.2.weight"),
        (odd.Strided, "relu2, up in w_in, down in w_out"),
        (odd.Called, "the modules list.{}"),
    ],
)
def test_what_one_expert_computes_is_found(factory, said):
    assert str(form_of(case(factory)).function) == said


def test_the_routers_weight_is_no_expert_and_a_bias_is():
    assert [w.name for w in form_of(case(odd.InlineGate)).routing] == ["gate.weight"]
    strided = form_of(case(odd.Strided))
    assert {w.name: w.minor for w in strided.weights} == {"w_in": True, "w_out": True, "bias": False}


def test_a_norm_inside_is_seen():
    assert form_of(case(odd.Normed)).view == ""  # what the router is given


def test_routing_is_read_from_the_output_with_its_gradient():
    built = case(odd.InlineGate).build(dtype=torch.float64)
    x = case(odd.InlineGate).tokens()
    routing = read_routing(built, x)
    weights, indices = F.softmax(built.module.gate(x.double()), dim=-1).topk(2, dim=-1)
    expected = odd.spread(weights / weights.sum(-1, keepdim=True), indices, 8)
    torch.testing.assert_close(routing.combine, expected, atol=1e-8, rtol=1e-6)
    assert torch.equal(routing.mask, expected > 0)
    assert torch.allclose(routing.logits, built.module.gate(x.double()))
    routing.combine.square().sum().backward()
    read = built.module.gate.weight.grad.clone()
    built.module.gate.weight.grad = None
    expected.square().sum().backward()
    torch.testing.assert_close(read, built.module.gate.weight.grad, atol=1e-8, rtol=1e-5)


def test_more_experts_than_equations():
    wide = Case(candidate=candidate_of("block", odd.InlineGate), shape=SHAPES[-1], seed=0, device=CPU)
    block = open_block(wide)
    routing = block.read(wide.tokens())
    assert torch.equal(routing.mask.sum(1), torch.full((len(wide.tokens()),), wide.shape.activated))
    torch.testing.assert_close(routing.sums, torch.ones_like(routing.sums))


def test_without_the_experts_function_the_ratio_is_judged_and_a_declaration_asked_for():
    findings = found(odd.Unknown, "recomposition")
    assert {f.status for f in findings} == {"unknown"}
    assert "ExpertLayout(up=" in findings[0].measured
    assert {f.status for f in found(odd.Unknown, "dense-equivalence")} == {"passed"}


def test_a_declaration_that_does_not_fit_is_named():
    claim = RoutingSpec(experts=ExpertLayout(up="up", gate="gate", down="down", axes="in_out", activation="gelu"))
    finding = found(odd.Plain, "recomposition", claim, shapes=SHAPES[:1])[0]
    assert finding.status == "failed"
    assert "silu, gate in gate" in finding.measured
    claim = RoutingSpec(experts=ExpertLayout(up="upp", down="down"))
    assert "those are gate, up, down" in found(odd.Plain, "recomposition", claim, shapes=SHAPES[:1])[0].measured


BROKEN = [
    (odd.Unweighted, None, "recomposition", "off the ratio", 11),
    (odd.Swapped, None, "recomposition", "tokens that they were not given", None),
    (odd.NormalizesLater, RoutingSpec(weight_sum="free"), "recomposition", "normalizes them anew", 7),
    (odd.OnInput, None, "recomposition", "multiply the experts' input, not their output", None),
    (odd.Plain, RoutingSpec(apply_on="input"), "recomposition", "multiply the experts' output, not their input", None),
    (odd.Plain, RoutingSpec(route_scale=2.5), "recomposition", "the scale 2.5 is not applied", 10),
    (odd.BiasOutside, None, "recomposition", "", None),
    (odd.OnInput, None, "dense-equivalence", "times what one expert", None),
    (odd.ScaledShared, SCALED, "shared-unscaled", "2.5 times shared", 10),
    (odd.RoutedShared, SCALED, "shared-unscaled", "moves by", None),
    (odd.NothingShared, RoutingSpec(shared=True), "shared-unscaled", "the output is 0", None),
    (odd.Detached, None, "experts-train", "the router stays", 1),
    (odd.Detached, None, "gradient-split", "gradient of the router along a direction is 0 times", None),
    (odd.HalfDetached, None, "expert-gradient", "no gradient reaches gate of", 22),
    (odd.HalfDetached, None, "experts-train", "gate of", 22),
    (odd.Frozen, None, "expert-gradient", "require no gradient", 22),
    (odd.Frozen, None, "experts-train", "up of", 22),
    (odd.MeanOfNone, None, "empty-expert", "not finite", None),
    (odd.LeakyEmpty, None, "empty-expert", "get no token and still a gradient", None),
    (odd.DividedByBatch, None, "gradient-split", "add up", 16),
    (odd.Tied, None, "expert-init", "share one parameter", None),
    (odd.Equal, None, "expert-init", "only 1 of", None),
    (odd.ZeroUp, None, "expert-init", "gate and up start at 0", None),
    (odd.LastLouder, None, "expert-init", "in expert", None),
    (odd.FlatFan, None, "expert-init", "E^-0.", 25),
    (odd.FanOut, None, "expert-init", "neither constant", 25),
    (odd.Ones, None, "expert-init", "down is the same in every expert, and not 0", None),
    (odd.TwoSequences, None, "token-independence", "as two sequences of a batch, not one", None),
    (odd.SharedForEach, SCALED, "shared-unscaled", "is it added once for each?", None),
    (odd.TokensDetached, None, "gradient-split", "gradients of tokens, each along a direction, are off by", None),
    (odd.RouterAside, None, "gradient-split", "gradients of tokens, each along a direction, are off by", None),
    (odd.FewDigits, None, "runs", "has the digits of bfloat16 alone", None),
]


@pytest.mark.parametrize(
    ("factory", "claim", "id", "words", "cause"), BROKEN, ids=[f"{b[0].__name__}-{b[2]}" for b in BROKEN]
)
def test_broken_blocks_fail(factory, claim, id, words, cause):
    for finding in found(factory, id, claim, shapes=SHAPES[1:2], seeds=2):
        assert finding.status == "failed", finding
        assert words in finding.measured
        assert cause is None or cause in finding.causes
