"""Tiny random models of transformers, without any input from the user."""

from typing import Any

import pytest
import torch
from torch import nn

from mue_check import HyperParameters, Prescription, get_rule, parse_scenario
from mue_check.audit import AuditError, AuditReport, audit_model, init_parameters, param_groups, scenario_of
from mue_check.audit.roles import assign_roles

transformers = pytest.importorskip("transformers", reason="needs the extra hf")
transformers.logging.set_verbosity_error()

REFERENCE = "d=32,L=1,H=32,B=64,T=100"
BASE = HyperParameters(init_std=0.05)
COMMON = {
    "vocab_size": 96,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "intermediate_size": 96,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
MLA = {
    "n_routed_experts": 8,
    "moe_intermediate_size": 32,
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
GRANITE = {
    "attention_multiplier": 0.25,
    "logits_scaling": 4.0,
    "residual_multiplier": 0.22,
    "embedding_multiplier": 6.0,
}
QWEN2_MOE = {"num_experts": 8, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64}
FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("LlamaConfig", {}, "d=64,L=2,H=96"),
    "mistral": ("MistralConfig", {}, "d=64,L=2,H=96"),
    "qwen2": ("Qwen2Config", {}, "d=64,L=2,H=96"),
    "qwen3": ("Qwen3Config", {"head_dim": 16}, "d=64,L=2,H=96"),
    "mixtral": ("MixtralConfig", {"num_local_experts": 8}, "d=64,L=2,8e2a,h=96,router=softmax_norm"),
    "qwen2_moe": ("Qwen2MoeConfig", QWEN2_MOE, "d=64,L=2,8e2a2s,h=32,router=moge"),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {"num_experts": 8, "moe_intermediate_size": 32, "head_dim": 16, "norm_topk_prob": True},
        "d=64,L=2,8e2a,h=32,router=softmax_norm",
    ),
    "olmoe": ("OlmoeConfig", {"num_experts": 8, "norm_topk_prob": True}, "d=64,L=2,8e2a,h=96,router=softmax_norm"),
    "deepseek_v3": ("DeepseekV3Config", MLA, "d=64,L=2,8e2a1s,h=32"),
    "gpt_oss": ("GptOssConfig", {"num_local_experts": 8, "head_dim": 16}, "d=64,L=2,8e2a,h=96,router=softmax_norm"),
    "granitemoe": ("GraniteMoeConfig", {"num_local_experts": 8, **GRANITE}, "d=64,L=2,8e2a,h=96,router=softmax_norm"),
    "gpt2": ("GPT2Config", {"n_embd": 64, "n_layer": 2, "n_head": 4, "tie_word_embeddings": False}, "d=64,L=2,H=256"),
}


def build(family: str, **changes: Any) -> nn.Module:
    kind, own, _ = FAMILIES[family]
    values = {**COMMON, "num_experts_per_tok": 2, **own, **changes}
    if family in ("llama", "mistral", "qwen2", "qwen3", "gpt2"):
        del values["num_experts_per_tok"]
    if family == "gpt2":
        values = {k: v for k, v in values.items() if k not in COMMON or k in ("vocab_size", *changes)}
        values |= {"bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    model: nn.Module = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**values))
    return model


def prescription(model: nn.Module) -> Prescription:
    source = parse_scenario(REFERENCE)
    own = scenario_of(model, batch=source.tokens_per_step, steps=source.steps)
    return get_rule("complete_mue").prescribe(source, own)


def audited(model: nn.Module, optimizer: torch.optim.Optimizer, **more: Any) -> AuditReport:
    return audit_model(model, optimizer, reference=REFERENCE, base=BASE, **more)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_fails_and_what_is_prescribed_passes(family: str) -> None:
    model = build(family)
    assert str(scenario_of(model)) == FAMILIES[family][2] + ",B=1,T=1"
    assert all(a.role is not None for a in assign_roles(model).values())
    report = audited(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
    assert report.verdict == "FAIL"
    wrong = {o.role for o in report.offences if o.check == "lr"}
    assert {"attention_qkv", "attention_out", "unembedding"} <= wrong
    # Granite multiplies its embeddings, so the rule's rate is another one there
    assert not ({"token_embedding", "norm_gain"} if family != "granitemoe" else {"norm_gain"}) & wrong
    assert "expert_down" in wrong or "ffn_down" in wrong
    assert len(str(report).splitlines()) < 60
    assert max(map(len, str(report).splitlines())) < 220
    init_parameters(model, prescription(model), BASE)
    report = audited(model, torch.optim.AdamW(param_groups(model, prescription(model), BASE)))
    assert report.verdict == "PASS", str(report)
    assert len(report.rows) == len(list(model.parameters()))


def test_a_hundred_layers_stay_readable() -> None:
    model = build("mixtral", num_hidden_layers=40)
    report = audited(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
    assert len(report.rows) > 350
    assert len(str(report).splitlines()) < 50


def test_granites_multipliers() -> None:
    model = build("granitemoe")
    report = audited(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
    text = "\n".join(map(str, report.multipliers))
    assert "token_embedding: the rule's 1, the model's 6 (probed): partly folded as 0.1667" in text
    assert "attention_out: the rule's 0.5, the model's 0.22 (probed)" in text
    assert "unembedding: the rule's 0.5, the model's 0.25 (probed): partly folded as 2" in text
    # the same without a forward pass, from the configuration
    blind = audited(model, torch.optim.AdamW(model.parameters(), lr=1e-3), probe=False)
    assert "\n".join(map(str, blind.multipliers)).replace("configuration", "probed") == text


def test_deepseeks_routed_scale_is_part_of_R() -> None:
    model = build("deepseek_v3", routed_scaling_factor=2.0)
    report = audited(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
    # a = 2 and the model has 2, so A / m_L alone is left
    assert any("expert_down: the rule's 0.6667, the model's 2 (probed)" in str(line) for line in report.multipliers)
    assert any("read from a low rank" in note for note in report.notes)
    dense = next(r for r in report.rows if r.parameter == "model.layers.0.mlp.down_proj.weight")
    assert dense.role == "ffn_down"
    assert dense.fold == pytest.approx(64 / 96 / 2)


def test_an_attention_scale_that_is_not_the_rules() -> None:
    model = build("granitemoe", attention_multiplier=1.0)
    init_parameters(model, prescription(model), BASE)
    report = audited(model, torch.optim.AdamW(param_groups(model, prescription(model), BASE)))
    assert [(o.check, o.role) for o in report.offences] == [("multiplier", "attention_qkv")]
    assert report.offences[0].measured == pytest.approx(4)
    for layer in model.model.layers:  # type: ignore[union-attr]
        layer.self_attn.scaling = 0.25
    report = audited(model, torch.optim.AdamW(param_groups(model, prescription(model), BASE)))
    assert report.verdict == "PASS", str(report)


def test_weights_without_a_constant_sum_are_a_note() -> None:
    model = build("olmoe", norm_topk_prob=False)
    init_parameters(model, prescription(model), BASE)
    report = audited(model, torch.optim.AdamW(param_groups(model, prescription(model), BASE)))
    assert report.verdict == "PASS", str(report)
    assert any("assumes a constant sum" in note for note in report.notes)


def test_tied_embeddings_need_a_multiplier() -> None:
    model = build("llama", tie_word_embeddings=True)
    report = audited(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
    assert [o.check for o in report.offences if "unembedding" in o.role] == ["tied"]
    with pytest.raises(AuditError, match=r"multiply the logits by 0.5 in the model, or untie"):
        param_groups(model, prescription(model), BASE)
    tied = build("granitemoe", tie_word_embeddings=True, logits_scaling=2.0, embedding_multiplier=1.0)
    init_parameters(tied, prescription(tied), BASE)
    report = audited(tied, torch.optim.AdamW(param_groups(tied, prescription(tied), BASE)))
    assert report.verdict == "PASS", str(report)
