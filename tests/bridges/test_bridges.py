"""What `mue_check rules --format ...` prints is run, and the audit judges what it made."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mue_check import HyperParameters
from mue_check.audit import AuditReport, audit_model, scenario_of
from mue_check.bridges.base_shapes import read_base_shapes
from mue_check.cli import main
from mue_check.mutants.routing.experts import SwiGLU
from mue_check.mutants.setups.example import ExampleConfig, ExampleMixture
from tests.audit.set_ups import GPT, Listed, Llama
from tests.bridges import recorded

REFERENCE = "d=32,L=1,H=32,dh=16,B=64,T=1000"
MIXTURE = "d=64,L=2,8e2a1s,h=48,dh=16,T=4000"
BASE = HyperParameters()
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Execute what the command prints for a format and a target."""

    def execute(form: str, target: str, *options: str) -> dict[str, Any]:
        assert main(["rules", "--reference", REFERENCE, "--target", target, "--format", form, *options]) == 0
        text = capsys.readouterr().out
        space: dict[str, Any] = {"text": text}
        exec(compile(text, form, "exec"), space)
        return space

    return execute


def audited(model: nn.Module, optimizer: object, target: str, **how: Any) -> AuditReport:
    return audit_model(model, optimizer, reference=REFERENCE, target=target, base=BASE, **how)


MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "mixture with shared experts": (lambda: ExampleMixture(ExampleConfig()), MIXTURE),
    "nanoGPT with biases": (lambda: GPT(bias=True), "d=64,L=2,H=256,dh=16,T=4000"),
    "torchtune": (lambda: Llama(lambda: SwiGLU(64, 96)), "d=64,L=2,H=96,dh=16,B=128"),
    "a list of experts": (lambda: Llama(lambda: Listed(64, 48, 4, 2)), "d=64,L=2,4e2a,h=48,dh=16"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rule", ["complete_mue", "completed_p"])
def test_torch(run: Run, name: str, rule: str) -> None:
    make, target = MODELS[name]
    code, model = run("torch", target, "--rule", rule), make()
    code["init_parameters"](model, torch.Generator().manual_seed(0))
    report = audited(model, code["make_optimizer"](model), target, rule=rule)
    assert report.verdict == "PASS", str(report)
    groups = code["param_groups"](model)
    groups[0]["lr"] *= 1.1
    assert audited(model, torch.optim.AdamW(groups), target, rule=rule).verdict == "FAIL"


def test_declared_names_and_multipliers(run: Run, tmp_path: Path) -> None:
    """A model with names of its own, whose forward pass has all multipliers but one."""
    have = {"attention_out": 0.5, "router": 2.0, "unembedding": 0.5}
    model = ExampleMixture(ExampleConfig(), have)
    for block in model.layers:
        block.feed = block.mlp  # type: ignore[union-attr]
        del block.mlp
        block._modules["mlp"] = block.feed  # both names; the declared one is used first
    roles = tmp_path / "roles.toml"
    roles.write_text(
        '[roles]\n"layers.*.feed.gate.weight" = "router"\n"layers.*.feed.experts.gate_up_proj" = "expert_gate"\n'
        '"layers.*.feed.experts.down_proj" = "expert_down"\n'
        + "[multipliers]\n"
        + "\n".join(f"{role} = {value}" for role, value in have.items())
    )
    code = run("torch", MIXTURE, "--roles", str(roles))
    assert "attention_out 0.5, router 2" in code["text"]
    assert code["VALUES"]["attention_out"] == code["VALUES"]["attention_qkv"]
    code["init_parameters"](model)
    report = audited(model, code["make_optimizer"](model), MIXTURE)
    assert report.verdict == "PASS", str(report)


def test_the_biases_of_a_folded_matrix_follow_it(run: Run) -> None:
    code = run("torch", "d=64,L=2,8e2a,h=48,dh=16")
    names = {
        "model.layers.0.mlp.experts.down_proj_bias": "bias of expert_down",
        "model.layers.0.self_attn.o_proj.bias": "bias of attention_out",
        "model.layers.0.self_attn.q_proj.bias": "bias",
        "model.layers.0.mlp.experts.3.down_proj.bias": "bias of expert_down",
        "lm_head.bias": "bias",
    }
    assert {name: code["role_of"](name) for name in names} == names


@pytest.mark.parametrize(("tied", "unknown"), [(True, False), (False, True)])
def test_what_cannot_be_grouped_is_an_error(run: Run, tied: bool, unknown: bool) -> None:
    code, model = run("torch", MIXTURE), ExampleMixture(ExampleConfig(tied=tied))
    if unknown:
        model.extra = nn.Linear(2, 2)
    with pytest.raises((ValueError, LookupError), match=r"lm_head\.weight is tied|extra\.weight: no role"):
        code["make_optimizer"](model)


def test_head_width_and_expansion_are_said(run: Run) -> None:
    text = run("torch", "d=64,L=2,H=64,dh=32")["text"]
    assert re.search(r"attention logits must be scaled by 0\.707107/sqrt\(d_head\)", " ".join(text.split()))


def test_transformers(run: Run) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra hf")
    config = transformers.Qwen3MoeConfig(
        vocab_size=96,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=48,
        norm_topk_prob=True,
    )
    target = "d=64,L=2,8e2a,h=48,dh=16,router=softmax_norm,T=4000"
    model, code = transformers.Qwen3MoeForCausalLM(config), run("transformers", target)
    code["init_parameters"](model)
    trainer = object.__new__(code["TransferTrainer"])  # its constructor needs accelerate, which optimizers do not
    trainer.model, trainer.optimizer = model, None
    report = audited(model, trainer.create_optimizer(), target)
    assert report.verdict == "PASS", str(report)
    assert trainer.create_optimizer() is trainer.optimizer
    accepted = inspect.signature(transformers.TrainingArguments).parameters
    assert code["TRAINING_ARGUMENTS"].keys() <= accepted.keys()
    assert code["TRAINING_ARGUMENTS"]["max_steps"] == 4000


@pytest.mark.parametrize(
    "family", ["llama", "qwen2", "mixtral", "qwen2_moe", "gpt_oss", "granitemoe", "deepseek_v3", "gpt2"]
)
def test_families_of_transformers(run: Run, family: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra hf")
    from tests.audit.test_transformers import build

    model, options = build(family), []
    scenario = scenario_of(model)
    if family == "granitemoe":  # the scale of attention stays as it is: 0.25 is 1/sqrt(d_head)
        (tmp_path / "own.toml").write_text(
            "[multipliers]\ntoken_embedding = 6.0\nattention_out = 0.22\nexpert_down = 0.22\nunembedding = 0.25\n"
        )
        options = ["--roles", str(tmp_path / "own.toml")]
    target = f"{scenario.model},B=64,T=4000"
    code = run("torch", target, *options)
    if family == "deepseek_v3":  # its first layer is dense, and no SPEC says how wide
        with pytest.raises(LookupError, match=r"layers\.0\.mlp\.gate_proj\.weight: no role"):
            code["init_parameters"](model)
        return
    code["init_parameters"](model)
    report = audited(model, code["make_optimizer"](model), target)
    assert report.verdict == "PASS", str(report)


def test_megatron(run: Run) -> None:
    target = "d=64,L=1,4e2a1s,h=48,dh=16,T=4000"
    model, code = recorded.megatron_model(), run("megatron", target)
    code["init_parameters"](model)
    with recorded.megatron():
        overrides = code["config_overrides"](min_lr=1e-5)
    assert set(code["ARGUMENTS"][::2]) <= recorded.MEGATRON_FLAGS
    optimizer = recorded.megatron_optimizer(model, code["ARGUMENTS"], overrides)
    report = audited(model, optimizer, target, probe=False)
    assert report.verdict == "PASS", str(report)
    assert all(o["min_lr"] / o["max_lr"] == pytest.approx(1e-5 / code["LR"]) for o in overrides.values())
    assert "Do not add --use-mup" in code["text"]


def test_torchtitan(run: Run) -> None:
    target = "d=64,L=1,4e2a1s,h=48,dh=16,T=4000"
    model = recorded.titan_model()
    with recorded.torchtitan():
        config = run("torchtitan", target)["optimizer_config"]()
    run("torch", target)["init_parameters"](model)
    report = audited(model, config.build(model), target, probe=False)
    assert report.verdict == "PASS", str(report)


BSH = """\
# This is a base shape file encoded in yaml
# - `null` indicates a dimension is "finite", i.e. a non-"width" dimension
embed_tokens.weight:
- null
- 32
lm_head.weight:
- null
- 32
norm.weight:
- 32
scale: []
"""


def test_base_shapes_are_read(tmp_path: Path) -> None:
    file = tmp_path / "base.bsh"
    file.write_text(BSH)
    assert read_base_shapes(str(file)) == {
        "embed_tokens.weight": (None, 32.0),
        "lm_head.weight": (None, 32.0),
        "norm.weight": (32.0,),
        "scale": (),
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no shapes"),
        ("a: {b: 1}", "line 1, 'a: {b: 1}', is neither a name nor a size"),
        ("- 3", "line 1"),
        (BSH.replace("scale: []", "odd.weight:\n- 3"), "odd.weight has no role"),
        (BSH.replace("scale: []", "").replace("- null\n- 32\nlm", "- null\n- null\nlm"), "must be a width"),
    ],
)
def test_bad_base_shapes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str) -> None:
    file = tmp_path / "base.bsh"
    file.write_text(text)
    given = ["rules", "--reference", REFERENCE, "--target", MIXTURE, "--format", "mup", "--base-shapes", str(file)]
    assert main(given) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert len(captured.err.splitlines()) == 1


def test_mup(run: Run, tmp_path: Path) -> None:
    mup = pytest.importorskip("mup", reason="pip install --no-deps mup pyyaml")

    def made() -> ExampleMixture:
        model = ExampleMixture(ExampleConfig())
        model.lm_head = mup.MuReadout(64, 64, bias=False)
        return model

    code, model = run("mup", MIXTURE), made()
    mup.save_base_shapes(code["base_shapes"](model), str(tmp_path / "base.bsh"))
    code["prepare"](model)
    report = audited(model, code["make_optimizer"](model), MIXTURE)
    assert report.verdict == "PASS", str(report)
    # mup's own factors alone: neither the router nor the batch
    alone = audited(model, mup.MuAdamW(model.parameters(), lr=BASE.lr, weight_decay=BASE.weight_decay), MIXTURE)
    assert "router" in {o.role for o in alone.offences if o.check == "lr"}
    # the same from the file, and from another base
    for base in (tmp_path / "base.bsh", tmp_path / "other.bsh"):
        if not base.exists():
            text = (tmp_path / "base.bsh").read_text()
            base.write_text(re.sub(r"- (\d+)(\.\d+)?", lambda m: f"- {int(m[1]) // 2}", text))
        code, model = run("mup", MIXTURE, "--base-shapes", str(base)), made()
        code["prepare"](model)
        report = audited(model, code["make_optimizer"](model), MIXTURE)
        assert report.verdict == "PASS", str(report)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[roles]\n"a*" = "wheel"', "unknown role 'wheel'"),
        ('[roles]\n"a*" = "ffn_up"', "prescribes nothing for role 'ffn_up'"),
        ("[multipliers]\nrouter = 0", "router=0"),
        ("[multipliers]\nexpert_up = 2", "expert_up=2"),
    ],
)
def test_bad_roles_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str) -> None:
    file = tmp_path / "roles.toml"
    file.write_text(text)
    assert (
        main(["rules", "--reference", REFERENCE, "--target", MIXTURE, "--format", "torch", "--roles", str(file)]) == 2
    )
    assert says in capsys.readouterr().err
