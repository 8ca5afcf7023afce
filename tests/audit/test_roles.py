"""Roles: declared, or matched by name, shape and kind of module; never by name alone."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mue_check import RuleError, SpecError, scenario_of
from mue_check.audit import AuditError
from mue_check.audit.roles import assign_roles
from mue_check.mutants.setups.example import ExampleConfig, ExampleMixture
from tests.audit.set_ups import GPT


def tree(**shapes: tuple[int, ...] | nn.Module) -> nn.Module:
    """Modules by dotted name, written with __ for dots: a tuple is a bare parameter."""
    root = nn.Module()
    for path, leaf in shapes.items():
        *parents, last = path.split("__")
        at = root
        for part in parents:
            if not hasattr(at, part):
                at.add_module(part, nn.Module())
            at = at.get_submodule(part)
        if isinstance(leaf, nn.Module):
            at.add_module(last, leaf)
        else:
            at.register_parameter(last, nn.Parameter(torch.zeros(leaf)))
    return root


def linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


def roles(model: nn.Module, declared: dict[str, str] | None = None) -> dict[str, str]:
    return {name: str(a.role) for name, a in assign_roles(model, declared).items()}


def test_torchtitan() -> None:
    model = tree(
        tok_embeddings=nn.Embedding(50, 8),
        layers__0__attention__wq=linear(8, 8),
        layers__0__attention__wo=linear(8, 8),
        layers__0__attention_norm=nn.RMSNorm(8),
        layers__0__moe__experts__w1=(4, 6, 8),
        layers__0__moe__experts__w2=(4, 8, 6),
        layers__0__moe__experts__w3=(4, 6, 8),
        layers__0__moe__router__gate=linear(8, 4),
        layers__0__moe__shared_experts__w1=linear(8, 6),
        layers__0__moe__shared_experts__w2=linear(6, 8),
        layers__1__feed_forward__w1=linear(8, 20),
        layers__1__feed_forward__w2=linear(20, 8),
        layers__1__feed_forward__w3=linear(8, 20),
        norm=nn.RMSNorm(8),
        output=linear(8, 50),
    )
    expected = "token_embedding attention_qkv attention_out norm_gain expert_gate expert_down expert_up router"
    expected += " shared_gate shared_down ffn_gate ffn_down ffn_up norm_gain unembedding"
    assert list(roles(model).values()) == expected.split()
    down = assign_roles(model)["layers.0.moe.experts.w2"]
    assert (down.axes, down.fan_in, down.fan_out, down.experts) == ("out_in", 6, 8, 4)


def test_nanogpt() -> None:
    head = linear(8, 50)
    model = tree(
        transformer__wte=nn.Embedding(50, 8),
        transformer__wpe=nn.Embedding(16, 8),
        transformer__h__0__ln_1=nn.LayerNorm(8),
        transformer__h__0__attn__c_attn=nn.Linear(8, 24),
        transformer__h__0__attn__c_proj=nn.Linear(8, 8),
        transformer__h__0__mlp__c_fc=nn.Linear(8, 32),
        transformer__h__0__mlp__c_proj=nn.Linear(32, 8),
        transformer__ln_f=nn.LayerNorm(8),
        lm_head=head,
    )
    model.transformer.wte.weight = head.weight  # type: ignore[union-attr, assignment]
    found = assign_roles(model)
    assert found["transformer.wte.weight"].tied_roles == ("unembedding",)
    assert "lm_head.weight" not in found
    assert roles(model)["transformer.wpe.weight"] == "position_embedding"
    assert roles(model)["transformer.h.0.mlp.c_proj.weight"] == "ffn_down"
    assert roles(model)["transformer.h.0.attn.c_proj.weight"] == "attention_out"
    assert found["transformer.h.0.mlp.c_proj.bias"].bias_of == "transformer.h.0.mlp.c_proj.weight"
    config = SimpleNamespace(n_embd=8, n_layer=1, n_head=2)
    assert str(scenario_of(config)) == "d=8,L=1,H=32,dh=4,B=1,T=1"


@pytest.mark.parametrize(
    ("leaf", "says"),
    [
        ({"mlp__up_proj": linear(8, 8)}, None),
        ({"mlp__up_proj": linear(5, 7)}, "named as ffn_up, but no axis of [7, 5] is the width d=8"),
        ({"mlp__up_proj": nn.Conv1d(8, 8, 1, bias=False)}, "with 3 axes"),
        ({"mlp__up_proj__weight": (8, 8)}, "in a Module"),
        ({"mlp__gate": linear(8, 4)}, "named as router, but in a Linear"),
        ({"blocks__0__mixer__weight": (8, 8)}, "its name is not known"),
        ({"experts__w1": (4, 5, 7)}, "no axis"),
        ({"experts__w1": (4, 8)}, "with 2 axes"),
        ({"block__output": linear(8, 8)}, "not of the vocabulary's size"),
    ],
)
def test_a_name_alone_decides_nothing(leaf: dict[str, nn.Module], says: str | None) -> None:
    found = assign_roles(tree(embed_tokens=nn.Embedding(50, 8), **leaf))
    other = next(a for name, a in found.items() if name != "embed_tokens.weight")
    if says is None:
        assert other.role == "ffn_up"
    else:
        assert other.role is None
        assert says in other.why
        assert "declare it, roles={" in other.why


def test_stacks_that_state_their_axes() -> None:
    class Transposed(nn.Module):
        is_transposed = True

        def __init__(self) -> None:
            super().__init__()
            self.gate_up_proj = nn.Parameter(torch.zeros(4, 8, 8))
            self.down_proj = nn.Parameter(torch.zeros(4, 4, 8))

    found = assign_roles(tree(embed_tokens=nn.Embedding(50, 8), mlp__experts=Transposed()))
    up, down = found["mlp.experts.gate_up_proj"], found["mlp.experts.down_proj"]
    assert (up.axes, up.fan_in, up.fan_out) == ("in_out", 8, 8)
    assert (down.axes, down.fan_in, down.fan_out) == ("in_out", 4, 8)


def test_declared_roles_take_precedence() -> None:
    model = ExampleMixture(ExampleConfig())
    declared = {"layers.*.self_attn.q_proj.weight": "attention_out"}
    assert roles(model, declared)["layers.1.self_attn.q_proj.weight"] == "attention_out"
    model.mue_check_roles = {"layers.1.*": "router", "layers.1.self_attn.q_proj.weight": "bias"}  # type: ignore[assignment]
    found = roles(model, declared)
    assert found["layers.1.self_attn.q_proj.weight"] == "attention_out"
    assert found["layers.1.self_attn.k_proj.weight"] == "router"
    assert found["layers.0.self_attn.k_proj.weight"] == "attention_qkv"


@pytest.mark.parametrize(
    ("declared", "error", "says"),
    [
        ({"layer.*": "router"}, AuditError, "matches no parameter"),
        ({"layers.*": "experts"}, RuleError, "unknown role 'experts'"),
        (["layers.*"], AuditError, "must map name patterns to roles"),
    ],
)
def test_wrong_declarations_are_refused(declared: dict[str, str], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        assign_roles(ExampleMixture(ExampleConfig()), declared)


@pytest.mark.parametrize(
    ("changes", "spec"),
    [
        ({}, "d=64,L=2,8e2a1s,h=48,B=7,T=9"),
        ({"n_shared_experts": 0, "norm_topk_prob": False}, "d=64,L=2,8e2a,h=48,router=moge,B=7,T=9"),
        ({"scoring_func": "softmax"}, "d=64,L=2,8e2a1s,h=48,router=softmax_norm,B=7,T=9"),
        ({"head_dim": 32}, "d=64,L=2,8e2a1s,h=48,dh=32,B=7,T=9"),
        ({"num_experts": 0, "intermediate_size": 100}, "d=64,L=2,H=100,B=7,T=9"),
    ],
)
def test_a_scenario_from_a_configuration(changes: dict[str, object], spec: str) -> None:
    config = SimpleNamespace(**{**vars(ExampleConfig()), **changes})
    assert str(scenario_of(config, batch=7, steps=9)) == spec
    assert str(scenario_of(SimpleNamespace(config=config), batch=7, steps=9)) == spec


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (SimpleNamespace(), "has no configuration"),
        (SimpleNamespace(hidden_size=8, num_hidden_layers=2), "does not state its H"),
        (SimpleNamespace(hidden_size=8, num_hidden_layers=2, intermediate_size=8), "does not state its heads"),
        (
            SimpleNamespace(
                hidden_size=8,
                num_hidden_layers=2,
                num_experts=4,
                num_experts_per_tok=1,
                moe_intermediate_size=6,
                shared_expert_intermediate_size=8,
                head_dim=4,
            ),
            "no whole number of shared experts",
        ),
    ],
)
def test_an_incomplete_configuration_is_refused(config: object, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        scenario_of(config)


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"*": "ffn_up"}, "its name is that of a token_embedding: declare that by a pattern of its own"),
        ({"transformer.h.*": "ffn_up"}, "its name is that of a norm_gain"),
        ({"*attn*": "ffn_up", "*c_attn*": "attention_qkv"}, "comes before '*c_attn*': put the narrower pattern first"),
        ({"transformer.h.*.ln_1.weight": "bias"}, ""),
        ({"*c_attn*": "attention_qkv", "*attn*": "attention_out"}, ""),
    ],
)
def test_a_wide_pattern_must_not_take_what_has_a_name(declared: dict[str, str], says: str) -> None:
    found = [a.swallowed for a in assign_roles(GPT(), declared).values() if a.swallowed]
    assert bool(found) == bool(says)
    assert not says or any(says in line for line in found)
