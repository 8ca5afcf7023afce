"""``mue_check audit``: exit codes, one-line errors, text and JSON."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mue_check.audit import AuditError, audit_model
from mue_check.audit.setup import call_factory, load_factory
from mue_check.cli import main
from mue_check.mutants.setups.broken import right
from mue_check.mutants.setups.workbench import REFERENCE, TARGET
from tests.audit.set_ups import GPT

MUTANTS = "mue_check.mutants.setups.broken"
SPECS = ["--reference", REFERENCE, "--target", TARGET]
FACTORIES = """
import torch
from mue_check.mutants.setups.example import ExampleConfig, ExampleMixture
from mue_check.mutants.setups.broken import right


def raising():
    raise ValueError("no checkpoint\\nat all")

def meta():
    with torch.device("meta"):
        model = ExampleMixture(ExampleConfig())
    return model, torch.optim.AdamW(model.parameters())

def plain():
    model = torch.nn.Sequential(torch.nn.Embedding(9, 32), torch.nn.Linear(32, 9))
    return model, torch.optim.AdamW(model.parameters())

one = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])
nothing = lambda: None
model_alone = lambda: ExampleMixture(ExampleConfig())
five = lambda: (*right(), 1)
no_model = lambda: ("model", one)
no_optimizer = lambda: (model_alone(), None)
odd_optimizer = lambda: (model_alone(), "adam")
odd_scheduler = lambda: (*right()[:2], "cosine")
odd_loss = lambda: (*right()[:3], 3.0)
empty = lambda: (torch.nn.Identity(), one)
frozen = lambda: (right()[0].requires_grad_(False), one)

def sgd():
    model, *_ = right()
    print("built")
    return model, torch.optim.SGD(model.parameters(), lr=1e-3)

def renamed():
    model, optimizer, scheduler, loss = right()
    model.readout = model.lm_head
    del model.lm_head
    model.multipliers["unembedding"] = 1.0
    type(model).lm_head = property(lambda self: self.readout)
    return model, optimizer, scheduler, loss

answer = 42
"""


@pytest.fixture
def factories(tmp_path: Path) -> str:
    path = tmp_path / "factories.py"
    path.write_text(FACTORIES)
    return str(path)


def audit(*arguments: str) -> int:
    try:
        return main(["audit", *arguments])
    except SystemExit as stop:
        return int(str(stop.code))


@pytest.mark.usefixtures("in_process")
def test_exit_codes_and_text(capsys: pytest.CaptureFixture[str], factories: str) -> None:
    assert audit(f"{MUTANTS}:right", *SPECS) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "rule       complete_mue"
    assert out[-1] == "PASS: 27 parameters, all as prescribed"
    assert audit(f"{MUTANTS}:A_missing", *SPECS, "--quiet") == 1
    assert (
        capsys.readouterr().out == "FAIL: 2 of 27 parameters are not as prescribed: init_std, lr, weight_decay, eps\n"
    )
    assert audit(f"{factories}:sgd", *SPECS) == 3
    assert capsys.readouterr().out.splitlines()[-1].startswith("INCONCLUSIVE: ")


def test_json_to_standard_output_is_not_mixed_with_prints(capsys: pytest.CaptureFixture[str], factories: str) -> None:
    assert audit(f"{factories}:sgd", *SPECS, "--json", "-") == 3
    captured = capsys.readouterr()
    assert captured.err == "built\n"
    assert json.loads(captured.out)["verdict"] == "INCONCLUSIVE"


@pytest.mark.usefixtures("in_process")
def test_json_to_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "deep" / "audit.json"
    assert audit(f"{MUTANTS}:scheduler_overwrites_groups", *SPECS, "--json", str(path)) == 1
    assert "FAIL" in capsys.readouterr().out
    value = json.loads(path.read_text())
    assert [o["check"] for o in value["offences"]] == ["scheduler"]
    assert len(value["rows"]) == 27
    row = next(r for r in value["rows"] if r["parameter"].endswith("gate_up_proj"))
    assert (row["role"], row["shape"], row["fan_in"]) == ("expert_gate", [8, 96, 64], 64)
    assert set(row["measured"]) == set(row["prescribed"])
    assert "params" in value["groups_as_python"]
    assert value["multipliers"][0] | {"fold": 0.5, "form": "folded"} == value["multipliers"][0]


@pytest.mark.usefixtures("in_process")
def test_base_values_and_target_are_the_users(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(f"{MUTANTS}:right", *SPECS, "--lr", "2e-3", "--wd", "0.2", "--init-std", "0.02") == 1
    out = capsys.readouterr().out
    assert {line.split()[0] for line in out.splitlines() if " 0.5 " in line} >= {"lr", "weight_decay"}
    assert audit(f"{MUTANTS}:right", "--reference", REFERENCE, "--quiet") == 1  # as long as the reference: betas
    assert "beta1" in capsys.readouterr().out
    assert audit(f"{MUTANTS}:right", *SPECS, "--rule", "standard", "--quiet") == 1


@pytest.mark.usefixtures("in_process")
def test_roles_and_multipliers_from_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path, factories: str) -> None:
    assert audit(f"{factories}:renamed", *SPECS) == 1
    assert "readout.weight: its name is not known: declare it" in capsys.readouterr().out
    roles = tmp_path / "roles.toml"
    roles.write_text('[roles]\n"readout.*" = "unembedding"\n')
    assert audit(f"{factories}:renamed", *SPECS, "--roles", str(roles)) == 0
    roles.write_text('[roles]\n"readout.*" = "unembedding"\n[multipliers]\nunembedding = 0.5\n')
    assert audit(f"{factories}:renamed", *SPECS, "--roles", str(roles)) == 1
    assert "the forward pass shows another value than declared" in capsys.readouterr().out


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{factories}:raising"], "raised ValueError: no checkpoint"),
        (["{factories}:nothing"], "returned an object of type NoneType: must be (model, optimizer)"),
        (["{factories}:model_alone"], "returned an object of type ExampleMixture: must be (model, optimizer)"),
        (["{factories}:five"], "returned 5 values"),
        (["{factories}:no_model"], "the model is of type str, not a torch.nn.Module"),
        (["{factories}:no_optimizer"], "there is no optimizer"),
        (["{factories}:odd_optimizer"], "the optimizer is a str without"),
        (["{factories}:odd_scheduler"], "the scheduler is a str without step"),
        (["{factories}:odd_loss"], "the loss is a float, not a callable"),
        (["{factories}:empty"], "the model (Identity) has no parameters"),
        (["{factories}:meta"], "meta device"),
        (["{factories}:frozen"], "every parameter of the model is frozen"),
        (["{factories}:answer"], "answer is an int, not a function"),
        (["{factories}:missing"], "has no missing"),
        (["nothing"], "write module:function"),
        (["no_such_module:f"], "cannot be imported: ModuleNotFoundError"),
        (["docs/examples/sweep.csv:f"], "a file of code must end in .py"),
        (["no/such/file.py:f"], "no such file"),
        ([f"{MUTANTS}:right", "--target", "d=128"], "the target says d=128"),
        ([f"{MUTANTS}:right", "--rule", "mump"], "unknown rule 'mump'"),
        ([f"{MUTANTS}:right", "--lr", "0"], "lr=0"),
        ([f"{MUTANTS}:right", "--time-limit", "inf"], "--time-limit inf: must be above 0 and at most 86400"),
        ([f"{MUTANTS}:right", "--roles", "no.toml"], "--roles no.toml cannot be read"),
    ],
)
def test_odd_factories_and_bad_arguments_are_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], factories: str, arguments: list[str], says: str
) -> None:
    given = [argument.replace("{factories}", factories) for argument in arguments]
    assert audit(*given, "--reference", REFERENCE) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("mue_check audit: ")
    assert says in captured.err


@pytest.mark.parametrize("act", [lambda: pytest.skip("no"), lambda: sys.exit(0)])
def test_no_exit_of_a_loss_leaves_the_audit(act: Callable[[], Any]) -> None:
    model, optimizer, scheduler, _ = right()
    with pytest.raises(AuditError, match=r"the set-up raises \w+: .* \(test_audit_cli.py:\d+\)"):
        audit_model(model, optimizer, scheduler, reference=REFERENCE, target=TARGET, loss=act)


@pytest.mark.usefixtures("in_process")
def test_a_model_without_configuration_needs_a_target(
    capsys: pytest.CaptureFixture[str], factories: str, tmp_path: Path
) -> None:
    assert audit(f"{factories}:plain", "--reference", REFERENCE) == 2
    assert "pass --target SPEC" in capsys.readouterr().err
    roles = tmp_path / "roles.toml"
    roles.write_text('[roles]\n"0.weight" = "token_embedding"\n"1.weight" = "unembedding"\n"1.bias" = "bias"\n')
    assert audit(f"{factories}:plain", *SPECS, "--roles", str(roles)) == 1
    roles.write_text("[rolls]\n")
    assert audit(f"{factories}:plain", *SPECS, "--roles", str(roles)) == 2
    assert "must hold tables [roles] and [multipliers], not rolls" in capsys.readouterr().err


@pytest.mark.usefixtures("in_process")
def test_a_module_in_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "audit_mine.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    assert audit("audit_mine:right", *SPECS, "--quiet") == 0
    assert capsys.readouterr().out == "PASS: 27 parameters, all as prescribed\n"


def test_a_script_imports_its_neighbors_and_may_not_exit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "audit_neighbor.py").write_text("from tests.audit.set_ups import GPT as Model\n")
    (tmp_path / "audit_train.py").write_text(
        "import torch\nfrom audit_neighbor import Model\n\n\nclass Run:\n    @staticmethod\n    def build():\n"
        "        model = Model()\n        return model, torch.optim.AdamW(model.parameters())\n"
    )
    setup = call_factory(load_factory(f"{tmp_path}/audit_train.py:Run.build"), "it")
    assert isinstance(setup.model, GPT)
    (tmp_path / "audit_script.py").write_text("import sys\n\nsys.exit('usage: script --config FILE')\n")
    assert audit(f"{tmp_path}/audit_script.py:build", *SPECS) == 2
    error = capsys.readouterr().err
    assert "cannot be imported: SystemExit: usage: script --config FILE" in error
    assert len(error.splitlines()) == 1
