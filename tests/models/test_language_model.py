import pytest
import torch
import torch.nn.functional as F

from mue_check import HyperParameters, Role, get_rule, parse_scenario
from mue_check.models.attention import SHORT, attention
from mue_check.models.balancing import LayerRouting
from mue_check.models.embedding import _FewRows, embedding
from mue_check.models.language_model import LanguageModel
from mue_check.models.parameters import Parameter, initial_value, stable_seed
from mue_check.models.pointwise import EPS, apply, rms_norm
from mue_check.routing.choice import TokenChoice
from mue_check.routing.variants import route

REFERENCE = parse_scenario("d=32,L=2,H=32")
VOCAB, CONTEXT = 11, 8


def build(text: str, seeds=(0, 1), edit=None):
    target = parse_scenario(text, default=REFERENCE)
    prescription = get_rule("complete_mue").prescribe(REFERENCE, target)
    if edit:
        prescription = edit(prescription)
    model = LanguageModel(target.model, prescription, vocab=VOCAB, context=CONTEXT)
    std = {Role(row.role): row.init_std for row in prescription.values(HyperParameters(init_std=0.3))}
    return model, {p.name: initial_value(p, std[p.role], seeds) for p in model.parameters}


def tokens(batch: int = 3, length: int = CONTEXT, runs: int = 2) -> torch.Tensor:
    return torch.randint(0, VOCAB, (runs, batch, length), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("text", ["d=32", "d=48", "8e2a", "8e4a2g1s,h=16"])
def test_shapes_and_causality(text: str) -> None:
    model, p = build(text)
    x = tokens()
    logits = model.forward(p, x).view(2, 3, CONTEXT, VOCAB)
    changed = x.clone()
    changed[..., 5:] = (changed[..., 5:] + 1) % VOCAB
    other = model.forward(p, changed).view_as(logits)
    torch.testing.assert_close(other[:, :, :5], logits[:, :, :5])
    assert not torch.allclose(other[:, :, 5:], logits[:, :, 5:])


def test_blind_routing_alone_sees_later_tokens() -> None:
    """Which experts a place draws says nothing of them, and at equal experts the model is as causal as any."""
    model, p = build("8e2a,router=content_blind")
    x = tokens()
    changed = x.clone()
    changed[..., 5:] = (changed[..., 5:] + 1) % VOCAB
    whole, other = (model.forward(p, each).view(2, 3, CONTEXT, VOCAB) for each in (x, changed))
    assert not torch.allclose(other[:, :, :5], whole[:, :, :5])
    for name, value in p.items():
        if name.endswith(("expert_up", "expert_gate")):
            value.copy_(value[:, :, :1].expand_as(value))
        if name.endswith("expert_down"):
            value.copy_(value[:, :1].expand_as(value))
    whole, other = (model.forward(p, each).view(2, 3, CONTEXT, VOCAB) for each in (x, changed))
    torch.testing.assert_close(other[:, :, :5], whole[:, :, :5])
    assert not torch.allclose(other[:, :, 5:], whole[:, :, 5:])


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
        torch.testing.assert_close(model.forward(stacked, ids)[run].view_as(logits), logits, rtol=1e-4, atol=1e-5)


def test_loss_is_cross_entropy_of_the_next_token() -> None:
    model, p = build("8e2a")
    x = tokens(length=CONTEXT + 1)
    logits = model.forward(p, x[..., :-1])
    expected = [F.cross_entropy(logits[r], x[r, :, 1:].flatten()) for r in range(2)]
    torch.testing.assert_close(model.losses(p, x), torch.stack(expected))


def layer_of(p, *names: str):
    return {"b." + name: p["block0." + name].clone() for name in names}


def equal_weights(runs: int, tokens: int, activated: int) -> TokenChoice:
    indices = torch.arange(activated).expand(runs, tokens, activated)
    return TokenChoice(torch.full((runs, tokens, activated), 1 / activated), indices)


MIXTURE = ("expert_up", "expert_gate", "expert_down")
SHARED = ("shared_up", "shared_gate", "shared_down")


def test_shared_experts_have_a_multiplier_of_their_own() -> None:
    """R scales the routed sum alone, and A of the one does not scale the other."""
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    routing = equal_weights(2, 5, 2)
    text = "8e2a1s,h=16"

    def change(role: Role, multiplier: float):
        return lambda q: q.with_factors(role, forward_multiplier=multiplier)

    parts = {}
    for name, edit in {
        "prescribed": None,
        "shared": change(Role.SHARED_DOWN, 5.0),
        "routed": change(Role.EXPERT_DOWN, 5.0),
        "router": change(Role.ROUTER, 6.0),
    }.items():
        model, p = build(text, edit=edit)
        whole = layer_of(p, *MIXTURE, *SHARED)
        silent = {**whole, "b.expert_down": torch.zeros_like(whole["b.expert_down"])}
        shared = model.blocks.feed_forward.mixture(silent, "b.", x, routing)
        parts[name] = (model.blocks.feed_forward.mixture(whole, "b.", x, routing) - shared, shared)
    routed, shared = parts["prescribed"]
    up, gate, down = (whole["b." + name] for name in SHARED)
    expansion = 3 * 16 / 32
    torch.testing.assert_close(shared, (F.silu(x @ gate) * (x @ up)) @ down / expansion)
    for name, times_routed, times_shared in (
        ("shared", 1, 5 * expansion),
        ("routed", 5 * expansion, 1),
        ("router", 6 / 2, 1),
    ):
        torch.testing.assert_close(parts[name][0], routed * times_routed, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(parts[name][1], shared * times_shared)


def test_a_dense_moe_with_equal_experts_is_the_dense_layer() -> None:
    """a = N equal experts, R = a, weights that sum to 1: a times one expert, and A = d / (a h) takes it back."""
    model, p = build("4e4a,h=32")
    x = torch.randn(2, 5, 32)
    part = layer_of(p, *MIXTURE)
    for name in ("expert_up", "expert_gate"):
        part["b." + name][:] = part["b." + name][:, :, :1]
    part["b.expert_down"][:] = part["b.expert_down"][:, :1]
    out = model.blocks.feed_forward.mixture(part, "b.", x, route(torch.randn(2, 5, 4), model.routers.experts))
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


def seen_by_tap(model: LanguageModel, p) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}
    model.forward(p, tokens(), seen.__setitem__)
    return seen


def test_every_run_of_a_seed_gets_the_same_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    parameter, drawn, real = Parameter(name="w", role=Role.FFN_UP, shape=(3, 5)), [], torch.randn
    monkeypatch.setattr(torch, "randn", lambda *a, **k: drawn.append(a) or real(*a, **k))
    value = initial_value(parameter, 0.5, [7, 3, 7, 7])
    assert len(drawn) == 2
    assert torch.equal(value[0], value[2])
    for run, seed in ((0, 7), (1, 3)):
        alone = real(3, 5, generator=torch.Generator().manual_seed(stable_seed(seed, "w"))) * 0.5
        assert torch.equal(value[run], alone)


def test_taps_see_every_branch() -> None:
    seen = seen_by_tap(*build("8e2a"))
    names = ("attention_logits", "attention_branch", "router_logits", "ffn_branch")
    assert set(seen) == {"embedding", "residual", "logits", *(f"block{i}.{n}" for i in range(2) for n in names)}
    assert seen["logits"].shape == (2, 3 * CONTEXT, VOCAB)
    assert {len(value) for value in seen.values()} == {2}


def test_attention_logits_are_the_causal_scaled_products() -> None:
    model, p = build("d=48,dh=24")
    scores = seen_by_tap(model, p)["block0.attention_logits"]
    assert scores.shape == (2, 3, 2, CONTEXT, CONTEXT)
    x = p["token_embedding"][1][tokens()[1]] + p["position_embedding"][1]
    y = F.rms_norm(x, (48,), eps=1e-6)
    q, k = ((y @ p["block0.attention_qkv"][1][:, i]).unflatten(-1, (2, 24)).transpose(1, 2) for i in range(2))
    expected = (q @ k.transpose(-1, -2)) * (4 / 24)
    torch.testing.assert_close(scores[1], expected.tril(), rtol=1e-4, atol=1e-5)
    assert scores.triu(1).abs().max() == 0


def test_the_attention_scale_has_a_multiplier() -> None:
    model, p = build("d=32,dh=8")
    double, _ = build("d=32,dh=8", edit=lambda q: q.with_factors(Role.ATTENTION_QKV, forward_multiplier=2.0))
    plain, scaled = (seen_by_tap(m, p) for m in (model, double))
    name = "block0.attention_logits"
    torch.testing.assert_close(scaled[name], 2 * plain[name])
    doubled = {**p, "block0.attention_qkv": p["block0.attention_qkv"].clone()}
    doubled["block0.attention_qkv"][:, :, 0] *= 2  # as if the queries were twice as large
    name = "block0.attention_branch"
    torch.testing.assert_close(scaled[name], seen_by_tap(model, doubled)[name])
    assert not torch.allclose(scaled[name], plain[name])


def test_without_a_tap_no_attention_logits_are_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, p = build("d=32")
    formed = []
    tril = torch.Tensor.tril
    monkeypatch.setattr(torch.Tensor, "tril", lambda x, *rest: formed.append(1) or tril(x, *rest))
    model.forward(p, tokens())
    assert not formed
    seen_by_tap(model, p)
    assert len(formed) == 2


@pytest.mark.parametrize("router", ["sigmoid_norm", "content_blind"])
def test_hidden_values_choose_the_experts_unless_the_router_is_blind(router: str) -> None:
    model, p = build(f"8e2a,router={router}")
    other = {**p, "block0.router": p["block0.router"].flip(1), "position_embedding": p["position_embedding"] * 3}
    indices = []
    for parameters in (p, other):
        layers: list[LayerRouting] = []
        model.forward(parameters, tokens(), layers=layers)
        indices.append(torch.stack([layer.routing.indices.sort(-1).values for layer in layers]))
    assert torch.equal(*indices) == (router == "content_blind")
    assert not torch.equal(indices[0][0], indices[0][1])  # layers differ


def test_a_selection_bias_reaches_its_own_layer() -> None:
    model, p = build("8e2a,balance=selection_bias")
    routers = model.routers.start([0, 1], torch.device("cpu"))
    bias = routers.bias_LRE
    assert bias is not None
    bias[1, 0, 3] = 10
    layers: list[LayerRouting] = []
    model.forward(p, tokens(), routers=routers, layers=layers)
    share = [[(layer.routing.indices[r] == 3).any(-1).double().mean().item() for r in range(2)] for layer in layers]
    assert share[1][0] == 1
    assert max(share[0][0], share[0][1], share[1][1]) < 0.9
    assert build("8e2a")[0].routers.start([0, 1], torch.device("cpu")).bias_LRE is None


@pytest.mark.parametrize("context", [8, 2 * SHORT])
def test_attention_leaves_cudnn_out(monkeypatch: pytest.MonkeyPatch, context: int) -> None:
    real, seen = F.scaled_dot_product_attention, []

    def watched(*arguments, **options):
        seen.append((torch.backends.cuda.cudnn_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled()))
        return real(*arguments, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    attention(torch.randn(2, context, 3, 2, 16).bfloat16(), 0.25, causal=True)
    assert seen == [(False, True)]
    assert torch.backends.cuda.cudnn_sdp_enabled()


def test_the_norm_is_torchs_forward_and_backward() -> None:
    x, gain, upstream = torch.randn(3, 10, 16), torch.randn(3, 16), torch.randn(3, 10, 16)
    x[0, 0] = 0.0
    found = []
    for norm in (rms_norm, lambda x, gain: F.rms_norm(x, (16,), eps=EPS) * gain.unsqueeze(1)):
        leaves = [x.double().requires_grad_(), gain.double().requires_grad_()]
        out = norm(*leaves)
        found.append((out, *torch.autograd.grad(out, leaves, upstream.double())))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("context", [1, 2, 16, SHORT, SHORT + 1])
def test_attention_is_torchs_forward_and_backward(context: int, causal: bool) -> None:
    qkv, upstream = torch.randn(6, context, 3, 2, 8).double(), torch.randn(6, context, 16).double()
    found = []
    for way in (attention, plain_attention):
        leaf = qkv.clone().requires_grad_()
        out = way(leaf, 0.3, causal=causal)
        found.append((out, torch.autograd.grad(out, leaf, upstream)[0]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def plain_attention(qkv: torch.Tensor, scale: float, *, causal: bool) -> torch.Tensor:
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) * scale
    if causal:
        scores = scores.masked_fill(torch.ones(k.shape[2], k.shape[2]).triu(1).bool(), -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def test_the_gradient_of_a_small_table_is_that_of_indexing() -> None:
    """The product that a GPU computes instead."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    rows = torch.randint(0, 5, (2, 3, 7), generator=generator)
    upstream = torch.randn(2, 3, 7, 4, generator=generator, dtype=torch.float64)
    found, expected = apply(_FewRows, table, rows), embedding(table, rows)
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad(out, table, upstream)[0] for out in (found, expected)]
    torch.testing.assert_close(*gradients)
