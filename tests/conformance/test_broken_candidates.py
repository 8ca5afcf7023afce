"""Each broken candidate is broken: apart from its right twin in the property of its row, and healthy to look at."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mue_check.mutants.mutant import Mutant
from mue_check.mutants.routing import MUTANTS
from mue_check.mutants.routing.auxiliary import switch_loss
from mue_check.mutants.routing.examine import RIGHT, candidate
from mue_check.mutants.routing.selection import update_expert_bias
from mue_check.routing.claim import RoutingSpec
from tests.conformance.plain_loops import (
    SIZES,
    Size,
    block_reference,
    bug,
    combine_of,
    make,
    named,
    router_reference,
    tokens,
)

CHECKS = """weight-sum weight-sign gate load router-gradient router-gradient-exact expert-permutation token-permutation
    token-independence causality bias-selection group-limit group-infeasible capacity capacity-dropless deterministic
    ties train-eval gate-precision gate-bf16 extreme-logits input-mutation padding micro-batches load-at-init
    eval-state group-rank published-sizes shifted-logits router-parameters aux-finite
    aux-uniform aux-imbalance aux-layers aux-split aux-gradient recomposition expert-gradient gradient-split
    experts-train expert-init"""


def test_every_row_has_a_bug_except_the_optimizers() -> None:
    assert {b.row for b in MUTANTS} == set(range(1, 36)) - {23, 24}
    assert {b.caught_by for b in MUTANTS} <= set(CHECKS.split())
    names = [s.name for s in (*MUTANTS, *RIGHT)]
    assert len(names) == len(set(names))
    assert {b.twin for b in MUTANTS} <= {r.factory for r in RIGHT} | {switch_loss}


@pytest.mark.parametrize("broken", [b for b in MUTANTS if b.kind != "auxiliary_loss"], ids=lambda broken: broken.name)
def test_broken_ones_look_healthy(broken: Mutant) -> None:
    for size in SIZES:
        module, x = make(candidate(broken), size), tokens(size)
        returned = module(x.clone().unsqueeze(0) if broken.kind == "block" else x.clone())
        parts = returned if isinstance(returned, tuple) else (returned,)
        assert all(part.isfinite().all() for part in parts)


def both(name: str, size: Size = SIZES[-1], seed: int = 0) -> tuple[Any, Any, Tensor, RoutingSpec]:
    """The broken candidate, its twin with the same weights, tokens and the claim."""
    broken = candidate(bug(name))
    one, twin = make(broken, size, seed), make(broken, size, seed, bug(name).twin)
    twin.load_state_dict(one.state_dict())
    return one, twin, tokens(size, seed), broken.claim


def weights_of(module: Any, x: Tensor, claim: RoutingSpec) -> Tensor:
    return combine_of(module(x), claim, len(x), module.n_experts)


def gate_gradient(module: Any, x: Tensor, claim: RoutingSpec) -> float:
    combine = weights_of(module, x, claim)
    (combine * torch.randn_like(combine)).sum().backward()
    return float(module.weight.grad.abs().max())


@pytest.mark.parametrize("name", ["softmax_after_top_one", "normalized_top_one"])
def test_rows_1_and_2_the_gate_has_no_gradient(name: str) -> None:
    one, twin, x, claim = both(name)
    assert gate_gradient(one, x, claim) < 1e-12
    assert gate_gradient(twin, x, claim) > 1e-3


SUMS = ["top_k_not_normalized", "softmax_over_all", "logits_as_normalized_weights", "routed_scale_dropped"]


@pytest.mark.parametrize("name", SUMS)
def test_rows_3_4_5_and_7_sum_to_something_else(name: str) -> None:
    one, _, x, claim = both(name)
    assert ((weights_of(one, x, claim).sum(-1) - claim.expected_sum()).abs() > 0.05).float().mean() > 0.9


def test_row_5_weights_have_signs() -> None:
    one, twin, x, claim = both("logits_as_weights", Size(24, 10, 8, 6, 33))
    assert (weights_of(one, x, claim) < 0).any()
    assert (weights_of(twin, x, claim) >= 0).all()


@pytest.mark.parametrize(
    "name", ["bias_in_softmax_weights", "bias_in_sigmoid_weights", "bias_in_weights_of_wrong_gate"]
)
def test_rows_6_and_7_a_constant_bias_changes_weights(name: str) -> None:
    for module, changes in zip(both(name)[:2], (True, False), strict=True):
        x, claim = tokens(SIZES[-1]), candidate(bug(name)).claim
        before = weights_of(module, x, claim)
        module.get_buffer(claim.selection_bias).add_(1)
        assert torch.allclose(before, weights_of(module, x, claim)) is not changes


def test_row_7_softmax_for_sigmoid_sums_right_and_weighs_wrong() -> None:
    one, _, x, claim = both("softmax_for_sigmoid")
    found, wanted = weights_of(one, x, claim), router_reference(one, claim, x)
    torch.testing.assert_close(found.sum(-1), wanted.sum(-1))
    assert (found - wanted).abs().max() > 0.1


def test_row_8_negative_scores_lose_to_masked_groups() -> None:
    one, twin, x, claim = both("groups_masked_with_zero", Size(16, 8, 16, 6, 33))
    used = []
    for module in (one, twin):
        module.e_score_correction_bias.fill_(-0.5)
        used.append(int((weights_of(module, x, claim).view(len(x), 4, -1).sum(-1) > 0).sum(-1).max()))
    assert used[1] == 2 < used[0]


def test_row_9_infeasible_groups_are_accepted() -> None:
    broken = bug("infeasible_groups")
    _, weights, indices = broken.build(16, 8, 5)(torch.randn(9, 16))
    assert weights.isfinite().all()
    assert int((indices // 2).unique(dim=-1).shape[-1]) > 2
    with pytest.raises(ValueError, match="hold"):
        broken.twin(16, 8, 5)


def recomposed(name: str, size: Size) -> float:
    block, x = make(candidate(bug(name)), size), tokens(size)
    with torch.no_grad():
        return float((block(x.unsqueeze(0))[0] - block_reference(block, candidate(bug(name)).claim, x)).abs().max())


@pytest.mark.parametrize("name", ["routed_scale_forgotten", "routed_scale_twice", "outputs_not_weighted"])
def test_rows_10_and_11_do_not_recompose(name: str) -> None:
    assert recomposed(name, SIZES[0]) > 0.1


def test_row_26_does_not_recompose_where_matrices_are_square() -> None:
    assert recomposed("orientation_by_shape", Size(16, 8, 8, 2, 10)) > 0.1  # 2f = d
    assert recomposed("orientation_by_shape", Size(8, 8, 8, 2, 10)) > 0.1  # f = d
    assert recomposed("orientation_by_shape", Size(24, 10, 8, 2, 10)) < 1e-10


@pytest.mark.parametrize("name", ["jitter_in_place", "jitter_reaches_experts"])
def test_row_12_changes_its_input_in_training(name: str) -> None:
    one, twin, x, _ = both(name)
    before = x.unsqueeze(0) if bug(name).kind == "block" else x
    for module, training, changes in ((one, True, True), (one, False, False), (twin, True, False)):
        seen = before.clone()
        module.train(training)(seen)
        assert torch.equal(seen, before) is not changes


def test_rows_13_to_16_in_numbers() -> None:
    collapsed = [torch.eye(4)[e].expand(16, -1) * 8 for e in range(4)]
    even = torch.eye(4).repeat(4, 1) * 8

    def loss(name: str, layers: tuple[Tensor, ...]) -> Tensor:
        value: Tensor = bug(name).build(layers, 4, 1)
        return value

    assert float(loss("pooled_layers", tuple(collapsed))) == pytest.approx(1, rel=1e-3)
    assert float(switch_loss(tuple(collapsed), 4, 1)) > 3.9
    assert float(loss("softmax_of_softmax", (collapsed[0],))) < 2
    assert float(loss("softmax_of_softmax", (even,))) == pytest.approx(1, rel=1e-5)
    logits = torch.randn(16, 4, requires_grad=True)
    assert torch.equal(loss("ride_not_taken", (logits,)), switch_loss((logits,), 4, 1))
    assert not loss("ride_not_taken", (logits,)).requires_grad
    assert float(loss("sum_over_tokens", (even.repeat(2, 1),))) == pytest.approx(
        2 * float(loss("sum_over_tokens", (even,)))
    )
    one, twin, x, _ = both("loss_for_the_log")
    one(x)
    twin(x)
    assert torch.equal(one.auxiliary_loss, twin.auxiliary_loss)
    assert (one.auxiliary_loss.requires_grad, twin.auxiliary_loss.requires_grad) == (False, True)


def test_row_17_takes_more_than_capacity() -> None:
    one, twin, x, claim = both("capacity_never_reached")
    x = x[:1] + x * 1e-3
    assert int((weights_of(one, x, claim) > 0).sum(0).max()) == len(x)
    assert int((weights_of(twin, x, claim) > 0).sum(0).max()) == twin.capacity(len(x)) < len(x)


def test_row_18_drops_where_there_is_room() -> None:
    one, twin, x, _ = both("capacity_by_logits", Size(16, 8, 8, 4, 64))
    for module, wasted in ((one, True), (twin, False)):
        _, _, dispatch, counts = module(x)
        room = counts.clamp(max=module.capacity(len(x)))
        assert bool((dispatch.any(-1).sum(0) < room).any()) is wasted


def test_row_19_halves_move_the_bias_twice() -> None:
    for module, moves in zip(both("bias_moves_in_forward")[:2], (True, False), strict=True):
        x, before = tokens(SIZES[-1]), module.expert_bias.clone()
        for half in x.split(16):
            module(half)
        assert torch.equal(module.expert_bias, before) is not moves
    assert int(module.tokens_per_expert.sum()) == len(x) * module.top_k
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: update_expert_bias(module))
    optimizer.step()
    assert not torch.equal(module.expert_bias, before)
    assert int(module.tokens_per_expert.sum()) == 0


@pytest.mark.parametrize("name", ["gate_always_in_bfloat16", "gate_in_model_type"])
def test_row_20_flips_choices(name: str) -> None:
    size = Size(32, 8, 64, 8, 512)
    one, twin, x, claim = both(name, size)
    kind = torch.bfloat16 if name == "gate_in_model_type" else torch.float32
    one, twin, x = one.to(kind), twin.to(kind), x.to(kind)
    exact = router_reference(twin.double(), claim, x.double()) > 0
    twin.to(kind)
    assert ((weights_of(one, x, claim) > 0) != exact).any(-1).float().mean() > 0.005
    assert ((weights_of(twin, x, claim) > 0) == exact).all()


def test_row_21_gradients_are_four_times_too_large() -> None:
    one, twin, x, _ = both("gradient_times_parallel_degree", SIZES[0])
    for module in (one, twin):
        module(x.unsqueeze(0)).sum().backward()
    torch.testing.assert_close(one.experts.w2.grad, 4 * twin.experts.w2.grad)
    torch.testing.assert_close(one.router.weight.grad, twin.router.weight.grad)


def test_row_22_experts_have_no_gradient() -> None:
    one, twin, x, _ = both("forward_only_kernel", SIZES[0])
    assert torch.equal(one(x.unsqueeze(0)), twin(x.unsqueeze(0)))
    one(x.unsqueeze(0)).sum().backward()
    assert all(p.grad is None for p in one.experts.parameters())
    assert one.router.weight.grad.abs().max() > 0


def test_row_25_experts_start_too_small() -> None:
    one, twin = bug("fan_in_of_all_dimensions").build(32, 128, 4, 2), named("olmoe_block").factory(32, 128, 4, 2)
    ratio = twin.experts.gate_up_proj.detach().std() / one.experts.gate_up_proj.detach().std()
    assert float(ratio) == pytest.approx(16, rel=0.05)


def test_row_27_sees_the_future() -> None:
    one, _, x, claim = both("expert_choice_called_causal", SIZES[-1])
    later = torch.cat([x[:16], tokens(SIZES[-1], 9)[16:]])
    assert claim.causal
    assert not torch.allclose(one(x.unsqueeze(0))[:, :16], one(later.unsqueeze(0))[:, :16])


def test_row_28_everyone_takes_the_same_experts() -> None:
    one, _, x, claim = both("zero_router")
    assert int((weights_of(one, x, claim) > 0).sum(0).max()) == len(x)
    assert int((weights_of(make(named("complete_mue"), SIZES[-1]), x, claim) > 0).sum(0).max()) < len(x)
