"""Set-ups written after the audit, by other hands: right ones pass, wrong ones fail, odd ones are reported."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check import RULES, SpecError, scenario_of
from mue_check.audit import AuditError
from mue_check.mutants.routing.experts import SwiGLU
from mue_check.mutants.setups.example import ExampleConfig, ExampleMixture
from tests.audit.set_ups import (
    BASE,
    GPT,
    Listed,
    Llama,
    Make,
    Stacked,
    audited,
    made,
    right,
)

MIXTURE = "d=64,L=2,8e2a,h=48,dh=16"
FLAT = {"*.experts.w1": "expert_gate", "*.experts.w3": "expert_up", "*.experts.w2": "expert_down"}


def mixture(kind: Callable[..., nn.Module], *sizes: Any, factor: float = 1.0, **shape: int) -> Llama:
    model = Llama(lambda: kind(*sizes), **shape)
    for layer in model.layers:
        layer.moe.factor = factor  # type: ignore[union-attr, assignment]
    return model


KINDS: tuple[tuple[str, Make, str | None, dict[str, str] | None], ...] = (
    ("nano", lambda: GPT(bias=True), None, None),
    ("wide nano", lambda: GPT(n_embd=96, n_layer=3, n_head=6), None, None),
    ("dense", lambda: Llama(lambda: SwiGLU(48, 72), d=48, heads=3), "d=48,L=2,H=72", None),
    ("list", lambda: mixture(Listed, 64, 48, 8, 2), MIXTURE, None),
    ("in_out", lambda: mixture(Stacked, 64, 64, 16, 4), "d=64,L=2,16e4a,h=64", None),
    ("out_in", lambda: mixture(Stacked, 32, 16, 8, 8, "out_in", d=32, heads=2), "d=32,L=2,8e8a,h=16", None),
    ("flat", lambda: mixture(Stacked, 64, 48, 8, 2, "flat"), MIXTURE, FLAT),
    ("example", lambda: ExampleMixture(ExampleConfig()), "d=64,L=2,8e2a1s,h=48,dh=16", None),
    ("deep", lambda: mixture(Listed, 32, 64, 4, 1, d=32, heads=2, layers=5), "d=32,L=5,4e1a,h=64", None),
)


ASKED = [(kind, rule) for rule in RULES for kind in KINDS if rule == "complete_mue" or kind[0] in ("nano", "flat")]


@pytest.mark.parametrize(("kind", "rule"), ASKED, ids=[f"{rule}-{kind[0]}" for kind, rule in ASKED])
def test_the_proposed_groups_pass(kind: tuple[str, Make, str | None, dict[str, str] | None], rule: str) -> None:
    _, make, target, roles = kind
    longer = target and f"{target},B=256,T=3000"
    report = right(make, longer, rule=rule, roles=roles)
    assert report.verdict == "PASS", str(report)
    assert "(assumed)" not in str(report)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", KINDS[3:5], ids=lambda k: k[0])
def test_weights_of_any_type(kind: tuple[str, Make, str | None, dict[str, str] | None], dtype: torch.dtype) -> None:
    report = right(lambda: kind[1]().to(dtype), kind[2])
    # at this LR the gains of 1 do not move in half precision
    assert {(o.check, o.role) for o in report.offences} == (
        {("rounding", "norm_gain")} if dtype.itemsize == 2 else set()
    )
    assert not report.unjudged


def test_batch_and_duration_count() -> None:
    model, groups = made(GPT)
    report = audited(model, torch.optim.AdamW(groups), target="B=256,T=8000")
    assert {o.check for o in report.offences} == {"lr", "weight_decay", "eps", "beta1", "beta2"}
    rates = [(o.measured, o.prescribed) for o in report.offences if o.check == "lr"]
    # rho_B is 2 and rho_D 16
    assert all(m is not None and p is not None and m == pytest.approx(p * 8**0.5) for m, p in rates)


# multipliers, present or only declared


@pytest.mark.parametrize("kind", [Listed, Stacked])
def test_the_multiplier_of_a_mixture_is_measured_in_every_layout(kind: Callable[..., nn.Module]) -> None:
    # A = 2/3, R = 2 and 1/m_L = 1/2 make 2/3
    present = right(lambda: mixture(kind, 64, 48, 8, 2, factor=2 / 3), MIXTURE)
    assert present.verdict == "PASS"
    assert "expert_down: the rule's 0.6667, the model's 0.6667 (probed): present" in str(present)
    folded, groups = made(lambda: mixture(kind, 64, 48, 8, 2), MIXTURE)
    for layer in folded.layers:  # type: ignore[union-attr]
        layer.moe.factor = 2 / 3
    twice = audited(folded, torch.optim.AdamW(groups), target=MIXTURE)
    assert {o.role for o in twice.offences} == {"expert_down"}
    declared = {"router": 2.0, "expert_down": 1 / 3}
    model, groups = made(lambda: mixture(kind, 64, 48, 8, 2), MIXTURE, multipliers=declared)
    absent = audited(model, torch.optim.AdamW(groups), target=MIXTURE, multipliers=declared)
    assert [(o.check, o.measured) for o in absent.offences] == [("multiplier", pytest.approx(1.0))]


class MuReadout(nn.Linear):
    """mup's: it multiplies its input, and the bias not."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 0.5)


@pytest.mark.parametrize("declared", [None, {"unembedding": 0.5}])
def test_a_multiplier_inside_the_readout(declared: dict[str, float] | None) -> None:
    def make() -> nn.Module:
        model = GPT()
        model.lm_head = MuReadout(64, 80)
        return model

    report = right(make, multipliers=declared)
    assert report.verdict == "PASS", str(report)
    assert "unembedding: the rule's 0.5, the model's 0.5" in str(report)
    group = next(g for g in report.groups if "unembedding" in g.roles)
    assert group.lr == pytest.approx(BASE.lr)
    assert "bias of unembedding" in group.roles


def test_the_logits_bias_is_not_folded_with_their_matrix() -> None:
    def make() -> nn.Module:
        model = GPT(m_out=2.0)
        model.lm_head = nn.Linear(64, 80)
        return model

    model, groups = made(make)
    rates = {g["name"]: g["lr"] for g in groups}
    # the matrix takes up (1/2)/2, the bias makes good for the 2 that the model has behind it
    assert next(v for k, v in rates.items() if k.endswith(" = unembedding") or k == "unembedding") == BASE.lr / 4
    assert next(v for k, v in rates.items() if "bias of unembedding" in k) == BASE.lr / 2
    assert audited(model, torch.optim.AdamW(groups)).verdict == "PASS"


def test_a_depth_multiplier_on_one_branch_alone() -> None:
    report = right(lambda: GPT(m_attn=0.5))
    forms = {row.role: row.form for row in report.multipliers}
    assert (report.verdict, forms["attention_out"], forms["ffn_down"]) == ("PASS", "present", "folded")
    assert "mixed: multipliers present in the model; folded into" in report.form
    model, groups = made(GPT)
    model.config.m_attn = 0.5  # type: ignore[union-attr, assignment]
    assert {o.role for o in audited(model, torch.optim.AdamW(groups)).offences} == {"attention_out"}


def test_blocks_that_multiply_differently_are_not_judged() -> None:
    model, groups = made(GPT)
    model.transformer["h"][0].c = SimpleNamespace(m_attn=0.25, m_mlp=1.0)  # type: ignore[index, union-attr]
    report = audited(model, torch.optim.AdamW(groups))
    assert report.verdict == "INCONCLUSIVE"
    assert "attention_out: blocks show different multipliers, 0.25 to 1" in report.unjudged[0]


class Bare(GPT):
    """Norms that are functions: nothing says where a branch begins."""

    def __init__(self) -> None:
        super().__init__()
        del self.transformer["wpe"], self.transformer["ln_f"]
        for block in self.transformer["h"]:  # type: ignore[union-attr]
            del block.ln_1, block.ln_2

    def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
        t = self.transformer
        x = t["wte"](tokens)
        for block in t["h"]:  # type: ignore[union-attr]
            x = x + block.attn(F.rms_norm(x, (64,)))
            x = x + block.mlp(F.rms_norm(x, (64,)))
        return self.lm_head(F.rms_norm(x, (64,)))


def test_multipliers_that_cannot_be_measured_must_be_declared() -> None:
    report = right(Bare)
    assert report.verdict == "INCONCLUSIVE"
    assert "could be measured on attention_out, ffn_down, unembedding, and none is assumed" in report.unjudged[0]
    ones = dict.fromkeys(("attention_out", "ffn_down", "unembedding"), 1.0)
    assert not right(Bare, multipliers=ones).unjudged
    assert any("none is assumed" in note for note in right(Bare, probe=False).notes)


class Unnormalized(Listed):
    """The weights of the active experts are their scores, which have no constant sum."""

    def routed(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        weights, indices = self.gate(rows).sigmoid().topk(self.active)
        return weights, indices


def test_experts_without_one_multiplier_must_be_declared() -> None:
    make, target = lambda: mixture(Unnormalized, 64, 24, 4, 1, layers=1), "d=64,L=1,4e1a,h=24"
    report = right(make, target)
    assert report.verdict == "INCONCLUSIVE", str(report)
    assert "could be measured on expert_down, and none is assumed" in report.unjudged[0]
    report = right(make, target, multipliers={"expert_down": 1.0})
    assert report.verdict == "PASS", str(report)
    assert {r.role for r in report.rows if "experts" in r.parameter} == {"expert_gate", "expert_up", "expert_down"}
    assert next(r for r in report.rows if r.parameter.endswith("experts.2.w2.weight")).fan_in == 24


class Functional(GPT):
    """The logits come from the embedding's matrix, and no name says so."""

    def __init__(self, m_out: float = 1.0) -> None:
        super().__init__(m_out=m_out)
        del self.lm_head

    def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
        return F.linear(self.stream(tokens), self.transformer["wte"].weight) * self.config.m_out


def test_an_embedding_that_is_also_the_unembedding() -> None:
    with pytest.raises(AuditError, match=r"is tied: .* multiply the logits by 0.5"):
        made(Functional)
    report = right(lambda: Functional(0.5))
    assert report.verdict == "PASS", str(report)
    assert any(row.role == "token_embedding = unembedding" for row in report.rows)


class Sandwich(GPT):
    """A norm behind each branch, as Gemma and OLMo 2 have it."""

    def __init__(self) -> None:
        super().__init__()
        del self.transformer["wpe"]
        for block in self.transformer["h"]:  # type: ignore[union-attr]
            block.post_norm = nn.RMSNorm(64)

    def stream(self, tokens: Tensor) -> Tensor:
        t = self.transformer
        x = t["wte"](tokens)
        for block in t["h"]:  # type: ignore[union-attr]
            x = x + block.post_norm(block.attn(block.ln_1(x)))
            x = x + block.mlp(block.ln_2(x))
        return t["ln_f"](x)


def test_a_norm_at_the_end_of_a_branch_is_not_judged() -> None:
    report = right(Sandwich)
    assert report.verdict == "INCONCLUSIVE"
    assert "multipliers on attention_out: their branches end in a norm" in report.unjudged[0]
    assert {r.fold for r in report.rows if r.role == "attention_out"} == {1.0}


class FromZero(nn.Module):
    """Gemma's norm: the gain is 1 + weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(64))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (64,)) * (1 + self.weight)


def test_gains_that_start_at_zero() -> None:
    def make() -> nn.Module:
        model = GPT()
        model.transformer["ln_f"] = FromZero()
        return model

    model, groups = made(make)
    assert not model.transformer["ln_f"].weight.any()  # type: ignore[index, union-attr]
    assert audited(model, torch.optim.AdamW(groups)).verdict == "PASS"
    nn.init.ones_(model.transformer["ln_f"].weight)  # type: ignore[index, union-attr, arg-type]
    (offence,) = audited(model, torch.optim.AdamW(groups)).offences
    assert (offence.measured, offence.prescribed) == (1.0, 0.0)


def test_a_residual_stream_that_is_changed_in_place() -> None:
    class InPlace(GPT):
        def stream(self, tokens: Tensor) -> Tensor:
            t = self.transformer
            x = t["wte"](tokens)
            for block in t["h"]:  # type: ignore[union-attr]
                x += block.attn(block.ln_1(x))
                x += block.mlp(block.ln_2(x))
            return t["ln_f"](x)

    assert "ffn_down: the rule's 0.125, the model's 1 (probed)" in str(right(InPlace))


# models in wrappers, and names


def _positive(model: nn.Module) -> None:
    model.layers[0].moe.gate.weight.abs_()  # type: ignore[index, union-attr]


def _copied(model: nn.Module) -> None:
    first, *others = model.layers[1].moe.experts  # type: ignore[index, union-attr]
    for expert in others:
        expert.load_state_dict(first.state_dict())


@pytest.mark.parametrize(("change", "check"), [(_positive, "init_mean"), (_copied, "expert_init")])
def test_an_init_of_the_right_size_that_is_not_random(change: Callable[[nn.Module], None], check: str) -> None:
    model, groups = made(lambda: mixture(Listed, 64, 48, 8, 2), MIXTURE)
    with torch.no_grad():
        change(model)
    report = audited(model, torch.optim.AdamW(groups), target=MIXTURE)
    assert {o.check for o in report.offences} == {check}, str(report)


class Aside(GPT):
    """A layer in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.aside = [nn.Linear(64, 64)]

    def stream(self, tokens: Tensor) -> Tensor:
        return self.aside[0](super().stream(tokens))


def test_a_layer_that_is_not_the_models() -> None:
    report = right(Aside)
    assert [o.check for o in report.offences] == ["group"], str(report)
    assert "a trained tensor [64, 64] that is neither the model's nor in a group" in str(report)


class Holder(nn.Module):
    """What DistributedDataParallel does to names and attributes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *given: Any) -> Any:
        return self.module(*given)


@pytest.mark.filterwarnings("ignore")  # of torch's own, as it imports its compiler
@pytest.mark.parametrize("wrap", [Holder, torch.compile, lambda m: Holder(torch.compile(m))])
def test_a_wrapped_model_is_the_model(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model, groups = made(GPT)
    wrapped = wrap(model)
    report = audited(wrapped, torch.optim.AdamW(groups), roles={"transformer.h.0.ln_1.weight": "norm_gain"})
    assert report.verdict == "PASS", str(report)
    code: dict[str, Any] = {"model": wrapped}
    exec(report.groups_as_python(), code)
    assert sum(len(g["params"]) for g in code["groups"]) == len(list(model.parameters()))
    for i, block in enumerate(model.transformer["h"]):  # type: ignore[arg-type, index]
        model.transformer["h"][i] = torch.compile(block)  # type: ignore[index, operator]
    assert audited(model, torch.optim.AdamW(groups)).verdict == "PASS"


def test_modules_with_two_names_and_layers_that_are_one() -> None:
    def make() -> nn.Module:
        model = Llama(lambda: Listed(64, 48, 8, 2))
        model.layers[1] = model.layers[0]
        model.alias = model.layers[0].moe  # type: ignore[union-attr]
        return model

    model, groups = made(make, MIXTURE)
    report = audited(model, torch.optim.AdamW(groups), target=MIXTURE)
    assert report.verdict == "PASS", str(report)
    code: dict[str, Any] = {"model": model}
    exec(report.groups_as_python(), code)
    held = [id(p) for g in code["groups"] for p in g["params"]]
    assert sorted(held) == sorted({id(p) for p in model.parameters()})


def test_unknown_names_are_one_line_for_all_layers() -> None:
    model = Llama(lambda: SwiGLU(64, 96), layers=6)
    for layer in model.layers:
        layer.mix = nn.Linear(64, 64, bias=False)  # type: ignore[assignment]
    report = audited(model, torch.optim.AdamW(model.parameters()), target="d=64,L=6,H=96")
    lines = [line for line in str(report).splitlines() if "its name is not known" in line]
    assert len(lines) == 1
    assert "roles={'layers.*.mix.weight': ROLE}" in lines[0]


def test_a_parameter_without_a_shape() -> None:
    model = GPT()
    model.extra = nn.LazyLinear(4)
    with pytest.raises(AuditError, match=r"extra.weight has no shape yet \(a lazy module\)"):
        audited(model, torch.optim.AdamW(model.parameters()))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("d=64,L=2,16e2a,h=48", "N=16, but there are 8 of layers.0.moe.experts.*.w2.weight"),
        ("d=64,L=2,8e2a1s,h=48", "8e2a1s,h=48, but no parameter has the role shared_down"),
    ],
)
def test_a_target_with_other_experts(target: str, says: str) -> None:
    model = Llama(lambda: Listed(64, 48, 8, 2))
    with pytest.raises(AuditError) as caught:
        audited(model, torch.optim.AdamW(model.parameters()), target=target)
    assert says in str(caught.value)
    dense = Llama(lambda: SwiGLU(64, 48))
    with pytest.raises(AuditError, match="no parameter has the role expert_down"):
        audited(dense, torch.optim.AdamW(dense.parameters()), target=MIXTURE)


# head widths and expansions of the reference


@pytest.mark.parametrize(
    ("reference", "heads", "note"),
    [
        ("d=64,L=2,H=64", 2, "taken as the target's, 32, since its SPEC has no dh"),
        ("d=64,L=2,H=64,dh=32", 2, None),
        ("d=64,L=2,H=64,dh=16", 2, None),
    ],
)
def test_a_reference_without_a_head_width(reference: str, heads: int, note: str | None) -> None:
    model, _ = made(lambda: GPT(n_head=heads))
    report = audited(model, torch.optim.AdamW(model.parameters()), reference=reference)
    assert any("attention logits" in line for line in report.unjudged) == reference.endswith("16")
    assert [n for n in report.notes if "head width" in n] == ([f"the reference's head width is {note}"] if note else [])
    assert note is None or "d=64,L=2,H=64,dh=32" in report.reference


def test_head_widths_that_are_missing_or_impossible() -> None:
    model = Llama(lambda: SwiGLU(60, 60), d=60)
    report = audited(model, torch.optim.AdamW(model.parameters()), reference="d=20,L=1,H=20", target="d=60,L=2,H=60")
    assert "the reference's head width is taken as the target's, since neither SPEC has dh" in report.notes
    with pytest.raises(AuditError, match=r"has no head width .* 15 does not divide its d=32"):
        audited(model, torch.optim.AdamW(model.parameters()), reference="d=32,L=1,H=32", target="d=60,L=2,H=60,dh=15")
    config = {"hidden_size": 48, "num_hidden_layers": 2, "head_dim": 32, "intermediate_size": 64}
    with pytest.raises(SpecError, match="its heads are 32 wide, which does not divide d=48"):
        scenario_of(SimpleNamespace(config=config))


def test_a_reference_with_another_expansion_is_a_note() -> None:
    model, _ = made(GPT)
    report = audited(model, torch.optim.AdamW(model.parameters()), reference="d=64,L=2,H=256,dh=16")
    assert any("with A = 0.25 and with its down-projection at 2 x" in note for note in report.notes)
