"""Groups and initial values made from a prescription."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import mue_check
from mue_check import HyperParameters, Prescription, RuleError, get_rule, parse_scenario, scenario_of
from mue_check.audit import AuditError, audit_model, init_parameters, param_groups
from mue_check.mutants.setups.broken import right
from mue_check.mutants.setups.example import ExampleConfig, ExampleMixture
from mue_check.mutants.setups.workbench import BASE, REFERENCE, TARGET


def prescription(rule: str = "complete_mue", target: str = "T=4000") -> Prescription:
    source = parse_scenario(REFERENCE)
    own = scenario_of(ExampleConfig(), batch=source.tokens_per_step, steps=source.steps)
    return get_rule(rule).prescribe(source, parse_scenario(target, default=own))


def test_every_parameter_is_in_one_group_with_the_rows_values() -> None:
    model = ExampleMixture(ExampleConfig())
    groups = param_groups(model, prescription(), BASE)
    held = [id(p) for g in groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    row = next(r for r in prescription().values(BASE) if r.role == "router")
    group = next(g for g in groups if "router" in g["name"])
    assert (group["lr"], group["weight_decay"], group["eps"]) == (row.lr, row.weight_decay, row.eps)
    assert group["betas"] == (row.beta1, row.beta2)
    assert mue_check.param_groups is param_groups


@pytest.mark.parametrize(
    ("make", "keys"),
    [
        (torch.optim.AdamW, ("lr", "weight_decay", "eps", "betas")),
        (torch.optim.NAdam, ("lr", "weight_decay", "eps", "betas")),
        (lambda g: torch.optim.SGD(g, lr=0.1), ("lr", "weight_decay")),
        (lambda g: torch.optim.RMSprop(g, lr=0.1), ("lr", "weight_decay", "eps")),
        (torch.optim.Adafactor, ("lr", "weight_decay")),
    ],
)
def test_groups_for_other_optimizers(make: Callable[[Any], torch.optim.Optimizer], keys: tuple[str, ...]) -> None:
    groups = param_groups(ExampleMixture(ExampleConfig()), prescription(), BASE, keys=keys)
    optimizer = make(groups)
    assert all(
        set(keys) | {"params", "name"} == set(g)
        for g in param_groups(ExampleMixture(ExampleConfig()), prescription(), BASE, keys=keys)
    )
    assert len(optimizer.param_groups) == len(groups)


def test_init_is_drawn_by_role_and_by_generator() -> None:
    models = [ExampleMixture(ExampleConfig()) for _ in range(2)]
    for model in models:
        init_parameters(model, prescription(), BASE, generator=torch.Generator().manual_seed(3))
    a, b = (m.state_dict() for m in models)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert a["layers.0.mlp.experts.gate_up_proj"].std().item() == pytest.approx(BASE.init_std / math.sqrt(2), rel=0.02)
    assert torch.equal(a["norm.weight"], torch.ones(64))


def test_the_printed_groups_are_code_that_makes_them() -> None:
    model, optimizer, scheduler, loss = right()
    broken = torch.optim.AdamW(model.parameters(), lr=1e-3)
    report = audit_model(model, broken, reference=REFERENCE, target=TARGET, base=BASE, loss=loss)
    assert report.verdict == "FAIL"
    code = report.groups_as_python()
    assert all(len(line) < 160 for line in code.splitlines())
    space: dict[str, Any] = {"model": model}
    exec(code, space)
    made = torch.optim.AdamW(space["groups"])
    report = audit_model(model, made, reference=REFERENCE, target=TARGET, base=BASE, loss=loss)
    assert report.verdict == "PASS", str(report)
    assert optimizer is not scheduler


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"keys": ("lr", "momentum")}, "unknown key .momentum.: allowed are"),
        ({"multipliers": {"expert_up": 2.0}}, "expert_up has none"),
        ({"multipliers": {"router": 0.0}}, "must be a number above 0"),
        ({"multipliers": [2.0]}, "must map roles to numbers"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(AuditError, match=says):
        param_groups(ExampleMixture(ExampleConfig()), prescription(), BASE, **change)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("d=32", "says d=32, but embed_tokens.weight .* has 64"),
        ("16e2a1s,h=48", "says N=16"),
        ("8e2a1s,h=64", "says h=64"),
        ("8e2a2s,h=48", "says s h .*=96"),
        ("H=64", "says experts=none"),
    ],
)
def test_a_target_that_is_not_this_model_is_refused(target: str, says: str) -> None:
    with pytest.raises(AuditError, match=says):
        param_groups(ExampleMixture(ExampleConfig()), prescription(target=target), BASE)


def test_a_parameter_without_a_role_and_a_tied_embedding_are_refused() -> None:
    model = ExampleMixture(ExampleConfig())
    model.register_parameter("mix", torch.nn.Parameter(torch.ones(3)))
    with pytest.raises(AuditError, match=re.escape("1 parameters have no role; mix: its name is not known")):
        param_groups(model, prescription(), BASE)
    assert any("bias" in g["name"] for g in param_groups(model, prescription(), BASE, roles={"mix": "bias"}))
    with pytest.raises(AuditError, match=r"embed_tokens.weight is tied: .* multiply the logits by 0.5"):
        param_groups(ExampleMixture(ExampleConfig(tied=True)), prescription(), BASE)


def test_a_model_on_the_meta_device_gets_groups_and_no_audit() -> None:
    with torch.device("meta"):
        model = ExampleMixture(ExampleConfig())
    groups = param_groups(model, prescription(), BASE)
    assert sum(len(g["params"]) for g in groups) == 27
    with pytest.raises(AuditError, match="meta device"):
        audit_model(model, torch.optim.AdamW(groups), reference=REFERENCE, base=BASE)


def test_a_beta_out_of_range_is_a_rule_error() -> None:
    with pytest.raises(RuleError, match="must lie in"):
        param_groups(ExampleMixture(ExampleConfig()), prescription(target="B=64000,T=1"), HyperParameters())
