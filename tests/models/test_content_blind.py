import pytest
import torch

from mue_check.models.choice import Routing
from mue_check.models.content_blind import content_blind, mix, prefix_keys
from mue_check.spec import Experts

EXPERTS = Experts(total=16, activated=4, hidden=8, router="content_blind")


def some_tokens(runs: int = 1, batch: int = 64, length: int = 32, vocab: int = 8) -> torch.Tensor:
    return torch.randint(0, vocab, (runs, batch, length), generator=torch.Generator().manual_seed(0))


def choose(tokens: torch.Tensor, experts: Experts = EXPERTS, layer: int = 0) -> Routing:
    return content_blind(prefix_keys(tokens), layer, experts, torch.float32)


def test_the_same_on_every_machine() -> None:
    """Written down once: another hash, or an overflow, would change them."""
    tokens = torch.tensor([[[3, 1, 4, 1]]])
    assert prefix_keys(tokens).tolist() == [[3753300549, 2672392403, 1701506277, 1798404508]]
    sets = [[2, 10, 11, 15], [3, 4, 9, 13], [5, 6, 8, 15], [0, 5, 8, 10]]
    assert choose(tokens).indices.sort(-1).values.tolist() == [sets]
    assert mix(torch.tensor([2**32 - 1])).item() == 539527247


def test_it_is_causal_and_sees_the_whole_prefix() -> None:
    tokens = some_tokens()
    changed = tokens.clone()
    changed[..., 20] = (changed[..., 20] + 1) % 8
    old, new = (prefix_keys(t).view(tokens.shape) for t in (tokens, changed))
    assert torch.equal(old[..., :20], new[..., :20])
    assert (old[..., 20:] != new[..., 20:]).all()
    swapped = tokens.clone()
    swapped[..., [3, 7]] = tokens[..., [7, 3]]
    differs = tokens[..., 3] != tokens[..., 7]
    assert (prefix_keys(swapped).view(tokens.shape)[..., 10] != old[..., 10])[differs].all()


def test_the_same_prefix_gives_the_same_experts_in_every_run_and_place() -> None:
    tokens = some_tokens()
    twice = torch.cat([tokens, tokens.flip(1)])
    indices = choose(twice).indices.view(2, 64, 32, 4)
    assert torch.equal(indices[0], indices[1].flip(0))


@pytest.mark.parametrize("notation", ["16e4a", "16e4a2g", "10e3a", "6e1a", "64e2a"])
@pytest.mark.parametrize("layer", [0, 1, 5])
def test_loads_are_nearly_uniform(notation: str, layer: int) -> None:
    plain = Experts.from_notation(notation, hidden=8)
    # two kinds of token: an input could hardly be less random; the first 16 places hold prefixes that recur
    keys = prefix_keys(some_tokens(batch=256, length=80, vocab=2)).view(1, 256, 80)[..., 16:].flatten(1)
    routing = content_blind(keys, layer, plain, torch.float32)
    counts = torch.bincount(routing.indices.flatten(), minlength=plain.total).double()
    mean = counts.mean()
    # about 1 - a/N for draws that are independent, with a spread of sqrt(2 / (N - 1))
    chi_square = ((counts - mean) ** 2 / mean).sum() / (plain.total - 1)
    assert chi_square < 2.5
    assert (counts / mean - 1).abs().max() < 0.2


def test_pairs_of_experts_meet_alike() -> None:
    met = torch.zeros(4096, 16, dtype=torch.float64)
    indices = choose(some_tokens(batch=64, length=64)).indices[0]
    met.scatter_(1, indices, 1.0)
    together = (met.T @ met)[~torch.eye(16, dtype=torch.bool)]
    assert together.mean() == pytest.approx(4096 * 4 * 3 / (16 * 15))
    assert together.min() > 0.7 * together.mean()
    assert together.max() < 1.3 * together.mean()


def test_layers_draw_apart() -> None:
    tokens = some_tokens()
    sets = [torch.zeros(2048, 16).scatter_(1, choose(tokens, layer=i).indices[0], 1.0) for i in range(3)]
    for i in range(3):
        for j in range(i):
            # 4 of 16 twice: 1 in common on average
            assert (sets[i] * sets[j]).sum(-1).mean() == pytest.approx(1, abs=0.1)


def test_experts_are_different_and_weigh_alike() -> None:
    routing = choose(some_tokens())
    assert (routing.indices.sort(-1).values.diff(dim=-1) > 0).all()
    assert (routing.weights == 0.25).all()
    assert not routing.weights.requires_grad
