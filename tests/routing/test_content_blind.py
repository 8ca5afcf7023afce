from dataclasses import replace

import pytest
import torch

from mue_check.routing.choice import TokenChoice
from mue_check.routing.content_blind import content_blind, expected_draws, mix, place_keys
from mue_check.spec import Experts

EXPERTS = Experts(total=16, activated=4, hidden=8, router="content_blind")


def some_tokens(runs: int = 1, batch: int = 64, length: int = 32, vocab: int = 8) -> torch.Tensor:
    return torch.randint(0, vocab, (runs, batch, length), generator=torch.Generator().manual_seed(0))


def choose(tokens: torch.Tensor, experts: Experts = EXPERTS, layer: int = 0) -> TokenChoice:
    expected_E = expected_draws(experts, tokens.device)
    return content_blind(place_keys(tokens), layer, experts, torch.float32, expected_E)


def with_load(notation: str, load: str) -> Experts:
    return replace(Experts.from_notation(notation, hidden=8), router="content_blind", load=load)


def met_by(tokens: torch.Tensor, experts: Experts, layer: int = 0) -> torch.Tensor:
    """[M, E]: 1 where a token of the first run sees an expert."""
    indices = choose(tokens, experts, layer).indices[0]
    return torch.zeros(len(indices), experts.total, dtype=torch.float64).scatter_(1, indices, 1.0)


def test_the_same_on_every_machine() -> None:
    """Written down once: another hash, or an overflow, would change them."""
    tokens = torch.tensor([[[3, 1, 4, 1]]])
    assert place_keys(tokens).tolist() == [[419514603, 616077547, 3813072786, 3589081614]]
    sets = [[3, 7, 11, 12], [0, 4, 10, 14], [1, 5, 10, 14], [3, 4, 5, 7]]
    assert choose(tokens).indices.sort(-1).values.tolist() == [sets]
    loaded = choose(tokens, with_load("16e2a", "zipf:1"))
    assert loaded.indices.sort(-1).values.tolist() == [[[5, 14], [1, 10], [2, 13], [0, 1]]]
    assert mix(torch.tensor([2**32 - 1])).item() == 539527247


def test_every_place_sees_the_whole_sequence_and_its_order() -> None:
    tokens = some_tokens()
    old = place_keys(tokens).view(tokens.shape)
    for at in (0, 20, 31):
        changed = tokens.clone()
        changed[:, :7, at] = (changed[:, :7, at] + 1) % 8
        new = place_keys(changed).view(tokens.shape)
        assert (old[:, :7] != new[:, :7]).all()
        assert torch.equal(old[:, 7:], new[:, 7:])  # no other sequence of the batch
    swapped = tokens.clone()
    swapped[..., [3, 7]] = tokens[..., [7, 3]]
    differs = tokens[..., 3] != tokens[..., 7]
    assert (place_keys(swapped).view(tokens.shape) != old)[differs].all()
    assert len(old.unique()) > 0.99 * old.numel()


def test_the_same_sequence_gives_the_same_experts_in_every_run_and_place() -> None:
    tokens = some_tokens()
    twice = torch.cat([tokens, tokens.flip(1)])
    indices = choose(twice).indices.view(2, 64, 32, 4)
    assert torch.equal(indices[0], indices[1].flip(0))


@pytest.mark.parametrize("load", ["", "zipf:1"])
def test_which_token_it_is_says_nothing_of_its_experts(load: str) -> None:
    """Of the token itself, the one before and the next: shares of experts do not differ between its values."""
    experts = with_load("16e2a", load)
    tokens = some_tokens(batch=512, length=40)
    met = met_by(tokens, experts).view(512, 40, 16)
    share = met.mean((0, 1))
    for shift in (0, 1, -1):
        kind = tokens[0].roll(shift, 1)[:, 1:-1]
        chi_square = 0.0
        for value in range(8):
            of_kind = met[:, 1:-1][kind == value]
            chi_square += (((of_kind.mean(0) - share) ** 2) / (share * (1 - share) / len(of_kind))).sum().item()
        assert chi_square / (7 * 15) < 1.4, shift  # 1 on average, with a spread of sqrt(2 / 105) = 0.14


@pytest.mark.parametrize("notation", ["16e4a", "16e4a2g", "10e3a", "6e1a", "64e2a"])
@pytest.mark.parametrize("layer", [0, 1, 5])
def test_loads_are_nearly_uniform(notation: str, layer: int) -> None:
    plain = Experts.from_notation(notation, hidden=8)
    # two kinds of token: an input could hardly be less random
    keys = place_keys(some_tokens(batch=256, length=64, vocab=2))
    routing = content_blind(keys, layer, plain, torch.float32)
    counts = torch.bincount(routing.indices.flatten(), minlength=plain.total).double()
    mean = counts.mean()
    # about 1 - a/N for draws that are independent, with a spread of sqrt(2 / (N - 1))
    chi_square = ((counts - mean) ** 2 / mean).sum() / (plain.total - 1)
    assert chi_square < 2.5
    assert (counts / mean - 1).abs().max() < 0.2


LOADS = [
    ("16e4a", ""),
    ("16e2a", "uniform"),
    ("16e2a", "zipf:1"),
    ("16e4a", "zipf:0.5"),
    ("16e1a", "zipf:1.5"),
    ("16e4a2g", "zipf:0.5"),
    ("8e4a4g", "3/1/1/3/2/2/1/3"),
    ("4e2a", "3/3/1/1"),
    # at the edge: 1/a of all assignments, so every token has that expert
    ("4e2a", "3/1/1/1"),
    ("8e2a", "hot:1:0.5"),
    ("6e3a", "hot:2:0.66666666667"),
    ("8e4a2g", "3/1/1/1/1/1/1/3"),
    ("4e4a", "uniform"),
]


@pytest.mark.parametrize(("notation", "load"), LOADS)
def test_an_expert_is_drawn_with_a_times_its_share(notation: str, load: str) -> None:
    experts = with_load(notation, load)
    share = experts.target_load or [1 / experts.total] * experts.total
    expected = torch.tensor(share, dtype=torch.float64) * experts.activated
    for layer in (0, 3):
        met = met_by(some_tokens(batch=256, length=64, vocab=2), experts, layer)
        mean, sure = met.mean(0), expected > 1 - 1e-9
        assert (mean[sure] == 1).all()
        free = ~sure
        z = (mean - expected)[free] / (expected * (1 - expected) / len(met)).sqrt()[free]
        assert len(z) == 0 or z.square().mean() < 2.8, (layer, z)
        assert (z.abs() < 4).all()


@pytest.mark.parametrize(("notation", "load"), LOADS)
def test_a_loaded_draw_has_different_experts_of_each_group(notation: str, load: str) -> None:
    experts = with_load(notation, load)
    routing = choose(some_tokens(), experts)
    assert (routing.indices.sort(-1).values.diff(dim=-1) > 0).all()
    group = routing.indices // (experts.total // experts.groups)
    counts = torch.nn.functional.one_hot(group, experts.groups).sum(-2)
    assert (counts == experts.activated // experts.groups).all()
    assert (routing.weights == 1 / experts.activated).all()


@pytest.mark.parametrize("load", ["", "zipf:0.5"])
def test_no_pair_is_left_out(load: str) -> None:
    """Systematic sampling in one fixed order would never take neighbours together."""
    experts = with_load("16e4a", load)
    met = met_by(some_tokens(batch=256, length=64), experts)
    together = (met.T @ met) / len(met)
    apart = met.mean(0).outer(met.mean(0))
    pairs = ~torch.eye(16, dtype=torch.bool)
    assert ((together / apart)[pairs] > 0.5).all()
    assert ((together / apart)[pairs] < 1.2).all()


@pytest.mark.parametrize("load", ["", "zipf:1"])
def test_layers_draw_apart(load: str) -> None:
    experts, tokens = with_load("16e2a", load), some_tokens(batch=256)
    first, second = (met_by(tokens, experts, layer) for layer in (0, 1))
    expected = (first.mean(0) * second.mean(0)).sum()
    assert (first * second).sum(1).mean() == pytest.approx(expected.item(), rel=0.05)
