"""Blocks written in many styles: their experts are found, correct ones pass, and each bug fails the right check."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mue_check.conformance.block_probe import form_of, probe_block
from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.learned import Learned
from mue_check.conformance.reading import route_from_output
from mue_check.conformance.registry import CHECKS
from mue_check.routing.claim import ExpertLayout, RoutingSpec
from mue_check.routing.factory import ONE_TOKEN, SHAPES, candidate_of
from tests.conformance import odd_blocks as odd
from tests.specimens import normalized, spread, variant

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
BY_ID = {check.id: check for check in CHECKS}
LEARNED: dict[tuple[object, str], Learned] = {}


def outcomes_of(factory, id, claim=None, *, seeds=1, shapes=SHAPES):
    """The outcome of a check at each shape and seed."""
    candidate = candidate_of("block", factory, claim=claim or RoutingSpec())
    learned = LEARNED.setdefault((factory, str(claim)), Learned())
    cases = [
        ConformanceCase(candidate=candidate, shape=shape, seed=seed, device=CPU, learned=learned)
        for shape in candidate.shapes(shapes)
        for seed in range(seeds)
    ]
    return [BY_ID[id].run(case) for case in cases]


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
    "scaled_by_a": (odd.ScaledByA, RoutingSpec(activated_scale="block")),
}


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("name", RIGHT)
def test_right_blocks_pass(name, id):
    factory, claim = RIGHT[name]
    outcomes = outcomes_of(factory, id, claim, shapes=SOME)
    wrong = [o for o in outcomes if o.status not in ("passed", "skipped")]
    assert not wrong, wrong[0]
    assert id == "shared-unscaled" or any(o.status == "passed" for o in outcomes)


def _of_logits(block, x):
    return spread(*normalized(block.router(x).softmax(-1), block.k), block.n)


SHARED, VARIABLE = {"shared": True}, {"kind": "variable"}
TRAIN = ("expert-gradient", "experts-train", "recomposition")
OPENED = ("dense-equivalence", "gradient-split", *TRAIN)
IN_USE = [
    *(
        (block, SHARED, ["shared-unscaled"])
        for block in (odd.OneShared, odd.GatedShared, odd.BareShared, odd.TwoShared)
    ),
    (variant(odd.OneShared, "Quarter", factor=0.25), {**SHARED, "shared_scale": 0.25}, ["shared-unscaled"]),
    (odd.Nulls, {**VARIABLE, "null_experts": "identity"}, ["shared-unscaled", "weight-sum", "recomposition"]),
    (
        variant(odd.Nulls, "Zero", passes=False),
        {**VARIABLE, "null_experts": "zero"},
        ["shared-unscaled", "weight-sum", "recomposition"],
    ),
    (odd.Lora, {}, TRAIN),
    (odd.DropsInside, {"kind": "capacity", "capacity_factor": 2.0, "router": "router"}, ["capacity", "recomposition"]),
    # a router that is a linear layer, named in the claim: the output shows the routing
    (
        variant(odd.Plain, "Linear", router_class=staticmethod(lambda d, n, k: nn.Linear(d, n)), combine=_of_logits),
        {"router": "router"},
        ["load", "recomposition"],
    ),
    (
        odd.Inside,
        {"gate": "sigmoid", "weight_sum": "free", "apply_on": "input", "router": "router"},
        ["weight-sign", "recomposition", "gate", "selection"],
    ),
    (odd.Scaled, {}, OPENED),
    (odd.Modulated, {}, OPENED),
    (odd.Silent, {}, ["recomposition"]),
]


@pytest.mark.parametrize(("factory", "claim", "ids"), IN_USE, ids=[use[0].__name__ for use in IN_USE])
def test_kinds_in_use_pass(factory, claim, ids):
    for id in ids:
        outcomes = outcomes_of(factory, id, RoutingSpec(**claim), shapes=SHAPES[:2])
        assert {o.status for o in outcomes} <= {"passed", "skipped"}, (id, outcomes)
        if id == "recomposition":  # a gate that starts at zero is opened, and no other vector is
            opened = factory in (odd.Scaled, odd.Modulated)
            assert all(("at 1 instead of 0" in o.measured) == opened for o in outcomes)


def case(factory):
    return ConformanceCase(
        candidate=candidate_of("block", factory, claim=RoutingSpec()), shape=SHAPES[0], seed=0, device=CPU
    )


@pytest.mark.parametrize(
    ("factory", "function"),
    [
        (odd.Plain, "silu, gate in gate, up in up, down in down"),
        (odd.InlineGate, "gelu, up in experts.{}.0.weight, down in experts.{}.2.weight"),
        (odd.Strided, "relu2, up in w_in, down in w_out"),
        (odd.Called, "the modules list.{}"),
    ],
)
def test_the_function_of_one_expert_is_found(factory, function):
    assert str(form_of(case(factory)).function) == function


def test_the_routers_weight_is_no_expert_but_a_bias_per_expert_is():
    assert [t.name for t in form_of(case(odd.InlineGate)).router_tensors] == ["gate.weight"]
    strided = form_of(case(odd.Strided))
    assert {t.name: t.minor for t in strided.tensors} == {"w_in": True, "w_out": True, "bias": False}


def test_a_norm_inside_is_seen():
    assert form_of(case(odd.Normed)).view == ""  # what the router is given


def test_routing_is_read_from_the_output_with_its_gradient():
    built = case(odd.InlineGate).build(dtype=torch.float64)
    x = case(odd.InlineGate).tokens()
    routing = route_from_output(built, x)
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
    wide = ConformanceCase(candidate=candidate_of("block", odd.InlineGate), shape=SHAPES[-1], seed=0, device=CPU)
    block = probe_block(wide)
    routing = block.routing_from_output(wide.tokens())
    assert torch.equal(routing.mask.sum(1), torch.full((len(wide.tokens()),), wide.shape.activated))
    torch.testing.assert_close(routing.sums, torch.ones_like(routing.sums))


def test_with_an_unknown_function_only_ratios_are_checked_and_the_message_asks_for_a_declaration():
    outcomes = outcomes_of(odd.Unknown, "recomposition")
    assert {o.status for o in outcomes} == {"unknown"}
    assert "ExpertLayout(up=" in outcomes[0].measured
    assert {o.status for o in outcomes_of(odd.Unknown, "dense-equivalence")} == {"passed"}


def test_a_declaration_that_does_not_fit_fails_with_what_was_found():
    claim = RoutingSpec(experts=ExpertLayout(up="up", gate="gate", down="down", axes="in_out", activation="gelu"))
    outcome = outcomes_of(odd.Plain, "recomposition", claim, shapes=SHAPES[:1])[0]
    assert outcome.status == "failed"
    assert "silu, gate in gate" in outcome.measured
    claim = RoutingSpec(experts=ExpertLayout(up="upp", down="down"))
    assert "found were gate, up, down" in outcomes_of(odd.Plain, "recomposition", claim, shapes=SHAPES[:1])[0].measured


class BalancesItself(odd.Plain):
    """Returns a balancing loss of logits that it computes again, which no one can set."""

    def forward(self, x):
        share = self.router.logits(x.reshape(-1, self.d)).softmax(-1)
        load = F.one_hot(share.topk(self.k).indices, self.n).sum(1).float().mean(0) / self.k
        return super().forward(x), self.n * (load * share.mean(0)).sum()


def test_a_balancing_loss_of_other_logits_is_not_called_wrong():
    for id in ("aux-uniform", "aux-imbalance", "aux-gradient"):
        assert not [o.measured for o in outcomes_of(BalancesItself, id) if o.status == "failed"]


BROKEN = [
    (odd.Unweighted, None, "recomposition", "off the ratio", 11),
    (odd.Swapped, None, "recomposition", "tokens that were not assigned to them", None),
    (odd.NextBias, None, "recomposition", "depends on other experts' part of bias", None),
    (odd.NextDown, None, "recomposition", "depends on other experts' part of", None),
    (odd.NormalizesLater, RoutingSpec(weight_sum="free"), "recomposition", "normalizes them again", 7),
    (odd.OnInput, None, "recomposition", "multiply the experts' input, not their output", None),
    (odd.Plain, RoutingSpec(apply_on="input"), "recomposition", "multiply the experts' output, not their input", None),
    (odd.Plain, RoutingSpec(route_scale=2.5), "recomposition", "the scale 2.5 is not applied", 10),
    (odd.ScaledByA, None, "recomposition", 'claim activated_scale = "block"', None),
    (odd.AddsItsInput, None, "shared-unscaled", "the residual would be added twice", None),
    (odd.BiasOutside, None, "recomposition", "", None),
    (odd.OnInput, None, "dense-equivalence", "times what one expert", None),
    (odd.ScaledShared, SCALED, "shared-unscaled", "2.5 times shared", 10),
    (odd.RoutedShared, SCALED, "shared-unscaled", "changes by", None),
    (odd.NothingShared, RoutingSpec(shared=True), "shared-unscaled", "the output is 0", None),
    (odd.Detached, None, "experts-train", "the router does not change", 1),
    (odd.Detached, None, "gradient-split", "gradient of the router along a direction is 0 times", None),
    (odd.HalfDetached, None, "expert-gradient", "no gradient reaches gate in", 22),
    (odd.HalfDetached, None, "experts-train", "gate of", 22),
    (odd.Frozen, None, "expert-gradient", "require no gradient", 22),
    (odd.Frozen, None, "experts-train", "up of", 22),
    (odd.MeanOfNone, None, "empty-expert", "not finite", None),
    (odd.LeakyEmpty, None, "empty-expert", "get no token but a gradient", None),
    (odd.DividedByBatch, None, "gradient-split", "gradients of two halves differ", 16),
    (odd.Tied, None, "expert-init", "share one parameter", None),
    (odd.Equal, None, "expert-init", "only 1 of", None),
    (odd.ZeroUp, None, "expert-init", "gate and up start at 0", None),
    (odd.LastLouder, None, "expert-init", "in expert", None),
    (odd.FlatFan, None, "expert-init", "E^-0.", 25),
    (odd.FanOut, None, "expert-init", "neither constant", 25),
    (odd.Ones, None, "expert-init", "down is the same in every expert, and not 0", None),
    (odd.TwoSequences, None, "token-independence", "as two sequences of a batch instead of one", None),
    (odd.SharedForEach, SCALED, "shared-unscaled", "is it added once for each expert?", None),
    (odd.TokensDetached, None, "gradient-split", "gradients of tokens, each along a direction, differ", None),
    (odd.RouterAside, None, "gradient-split", "gradients of tokens, each along a direction, differ", None),
    (odd.Halved, None, "recomposition", "", None),
    (
        variant(odd.OneShared, "SharedOverRoot2", factor=2**-0.5),
        SHARED,
        "shared-unscaled",
        "0.7071 times shared; if that is intended, claim shared_scale=0.7071",
        None,
    ),
    (odd.GatedByOne, SHARED, "router-parameters", "depends on shared_gate.weight", 31),
    (odd.GatedTwice, SHARED, "shared-unscaled", "2 times shared with the gate shared_gate", None),
    (
        variant(odd.BareShared, "Half", factor=0.5),
        SHARED,
        "shared-unscaled",
        "0.5 times the function of to_hidden, to_width",
        None,
    ),
    (variant(odd.TwoShared, "Mean", factor=0.5), SHARED, "shared-unscaled", "0.5 times shared", None),
    (
        variant(odd.Nulls, "PassesNothing", passes=False),
        {**VARIABLE, "null_experts": "identity"},
        "shared-unscaled",
        "null experts add nothing; the claim says that they pass",
        None,
    ),
    (
        odd.Nulls,
        {**VARIABLE, "null_experts": "zero"},
        "shared-unscaled",
        "null experts pass their input on; the claim says that they add nothing",
        None,
    ),
    (odd.DeadLora, None, "expert-gradient", "no gradient reaches a in", None),
    (odd.FrozenLora, None, "expert-gradient", "require no gradient", None),
    (
        odd.InsideOnOutput,
        {"gate": "sigmoid", "weight_sum": "free", "apply_on": "input", "router": "router"},
        "recomposition",
        "the weights multiply the experts' output, not their input",
        None,
    ),
    (odd.FewDigits, None, "runs", "has only the digits of bfloat16", None),
]


@pytest.mark.parametrize(
    ("factory", "claim", "id", "words", "cause"), BROKEN, ids=[f"{b[0].__name__}-{b[2]}" for b in BROKEN]
)
def test_broken_blocks_fail(factory, claim, id, words, cause):
    claim = RoutingSpec(**claim) if isinstance(claim, dict) else claim
    for outcome in outcomes_of(factory, id, claim, shapes=SHAPES[1:2], seeds=2):
        assert outcome.status == "failed", outcome
        assert words in outcome.measured
        assert cause is None or cause in outcome.causes
