import pytest
import torch
import torch.nn.functional as F

from mue_check import HyperParameters, Role, get_rule, parse_scenario
from mue_check.models.language_model import LanguageModel
from mue_check.models.parameters import initial_value, stable_seed

REFERENCE = parse_scenario("d=32,L=2,H=32")
VOCAB, CONTEXT = 11, 8


def build(text: str, seeds=(0, 1), rule: str = "complete_mue"):
    target = parse_scenario(text, default=REFERENCE)
    prescription = get_rule(rule).prescribe(REFERENCE, target)
    model = LanguageModel(target.model, prescription, vocab=VOCAB, context=CONTEXT)
    std = {Role(row.role): row.init_std for row in prescription.values(HyperParameters(init_std=0.3))}
    return model, {p.name: initial_value(p, std[p.role], seeds) for p in model.parameters}


def tokens(batch: int = 3, length: int = CONTEXT, runs: int = 2) -> torch.Tensor:
    return torch.randint(0, VOCAB, (runs, batch, length), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("text", ["d=32", "d=48", "8e2a", "8e4a2g1s,h=16"])
def test_shapes_and_causality(text: str) -> None:
    model, p = build(text)
    x = tokens()
    logits = model.logits(p, x).view(2, 3, CONTEXT, VOCAB)
    changed = x.clone()
    changed[..., 5:] = (changed[..., 5:] + 1) % VOCAB
    other = model.logits(p, changed).view_as(logits)
    torch.testing.assert_close(other[:, :, :5], logits[:, :, :5])
    assert not torch.allclose(other[:, :, 5:], logits[:, :, 5:])


def test_against_a_plain_single_run_model() -> None:
    """The same dense model written without a run axis, from torch's own parts."""
    model, stacked = build("d=48,H=40", seeds=(4, 5))
    ids = tokens()
    for run in range(2):
        p = {name: value[run] for name, value in stacked.items()}
        x = F.embedding(ids[run], p["token_embedding"]) + p["position_embedding"]
        for layer in range(2):
            b = f"block{layer}."
            y = F.rms_norm(x, (48,), p[b + "attention_norm"], eps=1e-6)
            q, k, v = (y @ p[b + "attention_qkv"][:, i] for i in range(3))
            heads = [t.unflatten(-1, (3, 16)).transpose(1, 2) for t in (q, k, v)]
            scores = heads[0] @ heads[1].transpose(-1, -2) / 4
            scores = scores.masked_fill(torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).triu(1), float("-inf"))
            x = x + (scores.softmax(-1) @ heads[2]).transpose(1, 2).flatten(2) @ p[b + "attention_out"]
            y = F.rms_norm(x, (48,), p[b + "ffn_norm"], eps=1e-6)
            hidden = F.silu(y @ p[b + "ffn_gate"]) * (y @ p[b + "ffn_up"])
            x = x + hidden @ p[b + "ffn_down"] * (48 / 40)
        logits = F.rms_norm(x, (48,), p["final_norm"], eps=1e-6) @ p["unembedding"] * (32 / 48)
        torch.testing.assert_close(model.logits(stacked, ids)[run].view_as(logits), logits, rtol=1e-4, atol=1e-5)


def test_loss_is_cross_entropy_of_the_next_token() -> None:
    model, p = build("8e2a")
    x = tokens(length=CONTEXT + 1)
    logits = model.logits(p, x[..., :-1])
    expected = [F.cross_entropy(logits[r], x[r, :, 1:].flatten()) for r in range(2)]
    torch.testing.assert_close(model.losses(p, x), torch.stack(expected))


def test_shared_experts_are_outside_the_route_scale() -> None:
    model, p = build("8e2a1s")
    x = torch.randn(2, 5, 32)
    names = ("shared_up", "shared_gate", "shared_down", "expert_up", "expert_gate", "expert_down", "router")
    part = {name: p["block0." + name] for name in names}
    whole = model._feed_forward({f"b.{k}": v for k, v in part.items()}, "b.", x, lambda name, value: None)
    silent = {**part, "expert_down": torch.zeros_like(part["expert_down"])}
    shared = model._feed_forward({f"b.{k}": v for k, v in silent.items()}, "b.", x, lambda name, value: None)
    up, gate, down = (part[n] for n in ("shared_up", "shared_gate", "shared_down"))
    torch.testing.assert_close(shared, (F.silu(x @ gate) * (x @ up)) @ down)
    assert not torch.allclose(whole, shared)


def test_a_dense_moe_with_equal_experts_is_the_dense_layer() -> None:
    """a = N equal experts, R = a, weights that sum to 1: a times one expert, and A = d / (a h) takes it back."""
    model, p = build("4e4a,h=32")
    x = torch.randn(2, 5, 32)
    part = {f"b.{k}": p[f"block0.{k}"].clone() for k in ("router", "expert_up", "expert_gate", "expert_down")}
    for name in ("expert_up", "expert_gate"):
        part["b." + name][:] = part["b." + name][:, :, :1]
    part["b.expert_down"][:] = part["b.expert_down"][:, :1]
    out = model._feed_forward(part, "b.", x, lambda name, value: None) * model._branch_multiplier
    up, gate, down = part["b.expert_up"][:, :, 0], part["b.expert_gate"][:, :, 0], part["b.expert_down"][:, 0]
    torch.testing.assert_close(out, (F.silu(x @ gate) * (x @ up)) @ down, rtol=1e-4, atol=1e-5)


def test_init_depends_on_seed_and_name_alone() -> None:
    _, alone = build("8e2a", seeds=(7,))
    _, stacked = build("8e2a", seeds=(3, 7, 3))
    for name, value in alone.items():
        assert torch.equal(value[0], stacked[name][1])
        assert torch.equal(stacked[name][0], stacked[name][2])
    assert stable_seed(1, "a") == stable_seed(1, "a") != stable_seed(1, "b")
    assert not torch.equal(stacked["block0.expert_up"][0], stacked["block0.expert_gate"][0])


def test_taps_see_every_branch() -> None:
    model, p = build("8e2a")
    seen: dict[str, torch.Size] = {}
    model.logits(p, tokens(), lambda name, value: seen.__setitem__(name, value.shape))
    assert set(seen) == {
        "embedding", "residual", "logits",
        *(f"block{i}.{n}" for i in range(2) for n in ("attention_branch", "router_logits", "ffn_branch")),
    }  # fmt: skip
    assert seen["logits"] == (2, 3 * CONTEXT, VOCAB)
