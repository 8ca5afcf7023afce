"""Optimizers, schedulers and scripts that were not in mind when the audit was written."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.optim import lr_scheduler as schedulers

from mue_check.audit import AuditError
from mue_check.audit.setup import call_factory, load_factory
from mue_check.cli import main
from tests.audit.set_ups import GPT, REFERENCE, Masters, Plain, Several, audited, made


@pytest.mark.parametrize("writes", [True, False])
def test_an_optimizer_that_steps_copies(writes: bool) -> None:
    model, groups = made(GPT)
    before = copy.deepcopy(model.state_dict())
    report = audited(model, Masters(groups, writes=writes))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    if writes:
        assert report.verdict == "INCONCLUSIVE", str(report)
        assert "the optimizer holds copies of them and writes these back" in report.unjudged[0]
    else:
        assert {o.check for o in report.offences} == {"group"}
        assert str(report).splitlines()[-1] == "FAIL: 16 of 16 parameters are not as prescribed: group"


def test_several_optimizers_as_one() -> None:
    model, groups = made(GPT)
    matrices = [p for n, p in model.named_parameters() if ".h." in n and p.ndim == 2]
    rest = [{**g, "params": [p for p in g["params"] if all(p is not m for m in matrices)]} for g in groups]
    pair = torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW([g for g in rest if g["params"]])
    for given in (list(pair), Several(*pair)):
        report = audited(model, given)
        assert report.verdict == "INCONCLUSIVE", str(report)
        assert "of 8 parameters" in report.unjudged[0]
    with pytest.raises(AuditError, match="give the optimizers that it holds, as a list"):
        audited(model, SimpleNamespace(optimizers=pair, step=pair[0].step))


def test_embeddings_without_decay_are_told() -> None:
    model, groups = made(GPT)
    for group in groups:
        if group["name"].startswith("token_embedding"):
            group["weight_decay"] = 0.0
    report = audited(model, torch.optim.AdamW(groups))
    assert report.verdict == "PASS", str(report)
    assert "2 embeddings are not decayed: right if the reference's were not" in report.notes


SCHEDULES: dict[str, tuple[Callable[[torch.optim.Optimizer], object], str, str]] = {
    "warm-up from 0": (lambda o: schedulers.LambdaLR(o, lambda t: min(1.0, t / 5)), "PASS", "x 0.2 after 1"),
    "own warm-up": (Plain, "PASS", "x 0.1 after 1 scheduler step, at most x 1"),
    "own, long": (lambda o: Plain(o, warmup=10**5), "INCONCLUSIVE", "still raises them after 2000 steps"),
    "own, one rate": (lambda o: Plain(o, rate=1e-3), "FAIL", "lr"),
    "cyclic": (
        lambda o: schedulers.CyclicLR(
            o, [g["lr"] / 9 for g in o.param_groups], [g["lr"] for g in o.param_groups], 20, cycle_momentum=False
        ),
        "PASS",
        "at most x 1",
    ),
    "one cycle with betas": (
        lambda o: schedulers.OneCycleLR(o, [g["lr"] for g in o.param_groups], total_steps=40),
        "INCONCLUSIVE",
        "beta1: the scheduler moves it from 0.85 to 0.95",
    ),
    "least rate": (lambda o: schedulers.CosineAnnealingLR(o, 50, eta_min=1e-4), "FAIL", "groups are moved apart"),
    "to nothing": (lambda o: schedulers.CosineAnnealingLR(o, 100), "PASS", "over 2000 steps"),
    "by epoch": (lambda o: SimpleNamespace(step=lambda epoch: None), "INCONCLUSIVE", "cannot be stepped: TypeError"),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str) -> None:
    make, verdict, says = SCHEDULES[name]
    model, groups = made(GPT)
    optimizer = torch.optim.AdamW(groups)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = make(optimizer)
    before = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    report = audited(model, optimizer, scheduler)
    assert report.verdict == verdict, str(report)
    assert says in str(report)
    assert [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups] == before


# the command


def test_a_script_finds_its_neighbours_and_may_not_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "held_out_neighbour.py").write_text("from tests.audit.set_ups import GPT as Model\n")
    (tmp_path / "held_out_train.py").write_text(
        "import torch\nfrom held_out_neighbour import Model\n\n\nclass Run:\n    @staticmethod\n    def build():\n"
        "        model = Model()\n        return model, torch.optim.AdamW(model.parameters())\n"
    )
    setup = call_factory(load_factory(f"{tmp_path}/held_out_train.py:Run.build"), "it")
    assert isinstance(setup.model, GPT)
    (tmp_path / "held_out_script.py").write_text("import sys\n\nsys.exit('usage: script --config FILE')\n")
    assert main(["audit", f"{tmp_path}/held_out_script.py:build", "--reference", REFERENCE]) == 2
    said = capsys.readouterr().err
    assert "cannot be imported: SystemExit: usage: script --config FILE" in said
    assert len(said.splitlines()) == 1
