import pytest
import torch

from mue_check.models.balancing import (
    BIAS_STEP,
    LayerRouting,
    auxiliary_loss,
    routing_statistics,
    update_selection_bias,
)
from mue_check.routing.choice import ExpertChoice, TokenChoice
from mue_check.routing.variants import VARIANTS, route
from mue_check.spec import Experts

R, M, E = 2, 40, 8
SCORED = [name for name, variant in VARIANTS.items() if variant.scored]


def routed(logits: torch.Tensor, experts: Experts, bias: torch.Tensor | None = None) -> LayerRouting:
    return LayerRouting(logits, route(logits, experts, bias_RE=bias))


def make(router: str) -> Experts:
    return Experts(total=E, activated=1 if router == "switch" else 2, hidden=8, router=router)


def even_logits(strength: float) -> torch.Tensor:
    """Token t prefers experts t and t + 1: every expert is chosen as often as any other."""
    logits = torch.zeros(R, M, E, dtype=torch.float64)
    for t in range(M):
        logits[:, t, t % E] += strength
        logits[:, t, (t + 1) % E] += strength / 2
    return logits


@pytest.mark.parametrize("router", SCORED)
@pytest.mark.parametrize("strength", [1e-3, 1.0, 6.0])
def test_the_auxiliary_loss_is_one_at_uniform_load(router: str, strength: float) -> None:
    layers = [routed(even_logits(strength), make(router))] * 3
    torch.testing.assert_close(auxiliary_loss(layers, router), torch.ones(R, dtype=torch.float64))


@pytest.mark.parametrize("router", SCORED)
def test_the_auxiliary_loss_grows_with_collapse(router: str) -> None:
    losses = []
    for skew in (0.0, 0.5, 2.0, 8.0, 40.0):
        logits = even_logits(1.0)
        logits[..., :2] += skew
        losses.append(auxiliary_loss([routed(logits, make(router))], router)[0].item())
    assert losses == sorted(losses)
    # all on one expert (of a = 1) is N; on two of two with half the probability each, N / 2
    softmax = router in ("switch", "softmax_norm", "moge")
    assert losses[-1] > (0.95 * E / 2 if softmax else 1.2)
    assert losses[-1] <= E + 1e-9


def test_the_auxiliary_loss_is_its_formula() -> None:
    experts = make("softmax_norm")
    logits = torch.randn(R, M, E, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layers = [routed(logits, experts), routed(logits.flip(1) * 2 + logits, experts)]
    expected = torch.zeros(R, dtype=torch.float64)
    for layer in layers:
        for r in range(R):
            chosen = layer.routing.indices[r].flatten().tolist()
            for e in range(E):
                share = chosen.count(e) / len(chosen)
                expected[r] += E * share * layer.logits_RME[r].softmax(-1)[:, e].mean() / 2
    torch.testing.assert_close(auxiliary_loss(layers, "softmax_norm"), expected)


def test_two_collapsed_layers_do_not_look_even_together() -> None:
    experts = make("switch")
    first, second = torch.zeros(R, M, E), torch.zeros(R, M, E)
    first[..., 0] = second[..., 1] = 30
    assert auxiliary_loss([routed(first, experts), routed(second, experts)], "switch").tolist() == [E, E]


@pytest.mark.parametrize("router", SCORED)
def test_the_auxiliary_gradient_pulls_the_crowded_expert_down_in_its_own_run_alone(router: str) -> None:
    logits = even_logits(1.0)
    logits[0, :, 3] += 2
    logits.requires_grad_()
    loss_R = auxiliary_loss([routed(logits, make(router))], router)
    (gradient,) = torch.autograd.grad(loss_R[0], logits)
    assert (gradient[0, :, 3] > 0).all()
    assert gradient[0, :, [0, 6]].sum() < 0
    assert gradient[1].abs().max() == 0


def test_one_step_of_the_bias() -> None:
    """Expert 0 is crowded, 1 has the mean load, the others are below: -, 0, +; each run by its own load."""
    indices = torch.stack([torch.tensor([0] * 5 + [1] * 2 + [2]), torch.tensor([3] * 8)]).view(2, 8, 1)
    layer = LayerRouting(torch.zeros(2, 8, 4), TokenChoice(torch.ones(2, 8, 1), indices))
    bias = torch.zeros(1, 2, 4)
    update_selection_bias(bias, [layer])
    expected = torch.tensor([[[-1.0, 0, 1, 1], [1, 1, 1, -1]]]) * BIAS_STEP
    torch.testing.assert_close(bias, expected)
    update_selection_bias(bias, [layer])
    torch.testing.assert_close(bias, 2 * expected)


@pytest.mark.parametrize("router", SCORED)
def test_the_bias_evens_out_a_skewed_router(router: str) -> None:
    experts = make(router)
    logits = 0.5 * torch.randn(R, 400, E, generator=torch.Generator().manual_seed(0))
    logits[..., :2] += 1
    bias = torch.zeros(1, R, E)

    def crowding() -> float:
        load = routed(logits, experts, bias[0]).assignments().sum(1)
        return float((load / load.mean(-1, keepdim=True)).max())

    before = crowding()
    for _ in range(1000):
        update_selection_bias(bias, [routed(logits, experts, bias[0])])
    assert before > 2
    assert crowding() < 1.1


def test_statistics_of_token_choice() -> None:
    weights = torch.tensor([[[0.5, 0.5], [0.75, 0.25]]])
    layer = LayerRouting(torch.zeros(1, 2, 4), TokenChoice(weights * 3, torch.tensor([[[0, 1], [0, 3]]])))
    found = routing_statistics(layer)
    assert found.load_RE.tolist() == [[0.5, 0.25, 0, 0.25]]
    assert found.weight_sum_R.tolist() == [3]
    assert [found.weight_sum_low_R.tolist(), found.weight_sum_high_R.tolist()] == [[3], [3]]
    assert found.variance_factor_R.item() == pytest.approx((1 + 2 * (0.75**2 + 0.25**2)) / 2)


def test_tokens_whose_sums_err_in_opposite_directions_show_in_the_extremes() -> None:
    weights = torch.tensor([[[0.25, 0.25], [0.75, 0.75]]])
    found = routing_statistics(
        LayerRouting(torch.zeros(1, 2, 4), TokenChoice(weights, torch.tensor([[[0, 1], [0, 3]]])))
    )
    assert found.weight_sum_R.tolist() == [1]
    assert [found.weight_sum_low_R.tolist(), found.weight_sum_high_R.tolist()] == [[0.5], [1.5]]
    weights[0, 0, 0] = torch.nan
    found = routing_statistics(
        LayerRouting(torch.zeros(1, 2, 4), TokenChoice(weights, torch.tensor([[[0, 1], [0, 3]]])))
    )
    assert torch.stack([found.weight_sum_R, found.weight_sum_low_R, found.weight_sum_high_R]).isnan().all()


def test_statistics_of_expert_choice_count_who_took_a_token() -> None:
    """Of four tokens the first has both experts, two have one, and the last has none and no say."""
    routing = ExpertChoice(torch.tensor([[[0.6, 0.3], [0.2, 0.4]]]), torch.tensor([[[0, 1], [0, 2]]]))
    found = routing_statistics(LayerRouting(torch.zeros(1, 4, 2), routing))
    assert found.load_RE.tolist() == [[0.5, 0.5]]
    assert found.weight_sum_R.item() == pytest.approx((0.8 + 0.3 + 0.4) / 3)
    assert found.weight_sum_low_R.item() == pytest.approx(0.3)
    assert found.weight_sum_high_R.item() == pytest.approx(0.8)
    assert found.variance_factor_R.item() == pytest.approx((2 * (0.36 + 0.04) / 0.64 + 1 + 1) / 3)
