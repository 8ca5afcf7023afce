"""``mue_check model``: right models pass, the base size is checked, and bad input is one clear line."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mue_check import check_model
from mue_check.audit import init_parameters, param_groups
from mue_check.audit.scenario import scenarios_of
from mue_check.cli import main
from mue_check.judge.verdict import Verdict
from mue_check.mutants.setups.example import ExampleConfig, ExampleMixture
from mue_check.mutants.setups.workbench import BASE, REFERENCE
from mue_check.own_model.candidate import Candidate, ModelError
from mue_check.own_model.figure import plot_report
from mue_check.own_model.measure import Key, measure
from mue_check.rules import Prescription, get_rule
from tests.own_model.example import EXPERTS, LAYERS, WIDTHS, my_model, suspects, with_groups
from tests.own_model.mup_like import KINDS, Accumulated, WithBaseShapes


@pytest.mark.parametrize(
    ("axis", "sizes"), [("width", WIDTHS), ("experts", EXPERTS), ("layers", LAYERS), ("top_k", (1, 2, 4))]
)
def test_the_example_passes_along_each_axis(axis: str, sizes: tuple[int, ...]) -> None:
    report = check_model(my_model, axis=axis, sizes=sizes, base=my_model.BASE_WIDTH if axis == "width" else 0)
    assert report.verdict is Verdict.PASS, str(report)
    assert not report.faults


@pytest.mark.parametrize("kind", KINDS)
def test_base_shapes_right_and_missing(kind: str) -> None:
    right = check_model(WithBaseShapes(kind), sizes=WIDTHS)
    assert right.verdict is Verdict.PASS, str(right)
    wrong = suspects(check_model(WithBaseShapes(kind, shapes=False), sizes=WIDTHS))
    assert {"hidden.weight", "blocks.*.fc1.weight"} & set(wrong)


def test_the_table_of_models_of_mup() -> None:
    shapes = WithBaseShapes("mlp")
    table = {width: partial(shapes.model, width) for width in (32, 64, 128)}
    functions = SimpleNamespace(optimizer=shapes.optimizer, loss=shapes.loss, batches=shapes.batches)
    report = check_model(Candidate.of(table, functions))
    assert report.sizes == (32, 64, 128)
    assert report.verdict is Verdict.PASS


def test_a_readout_that_starts_at_zero() -> None:
    class Zero(WithBaseShapes):
        def model(self, width: int) -> nn.Module:
            model = super().model(width)
            nn.init.zeros_(model.readout.weight)
            return model

    report = check_model(Zero("mlp"), sizes=WIDTHS)
    assert report.updates > 1
    assert report.verdict is Verdict.PASS, str(report)


def test_accumulated_gradients_and_a_schedule_change_no_verdict() -> None:
    class Scheduled(WithBaseShapes):
        def scheduler(self, optimizer: torch.optim.Optimizer) -> object:
            return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 10)

    class Both(Accumulated, Scheduled):
        pass

    plain = measure(Candidate.of(WithBaseShapes("mlp")), "width", 64, 0, 1e-3, 1)
    accumulated = measure(Candidate.of(Accumulated("mlp")), "width", 64, 0, 1e-3, 1)
    for key, change in plain.change.items():
        assert accumulated.change[key] == pytest.approx(change, rel=0.02)
    rates = measure(Candidate.of(Both("mlp")), "width", 64, 0, 1e-3, 1).rates["first.weight"]
    assert rates == pytest.approx([1e-3, 2e-4, 3e-4, 4e-4, 5e-4])  # as built, after the own step, and later
    for kind in (Accumulated, Scheduled):
        assert check_model(kind("mlp"), sizes=WIDTHS).verdict is Verdict.PASS


def sharded(rank: int, file: str, out: str) -> None:
    """One of two processes: the transformer with its parameters as DTensors."""
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))

    class Sharded(WithBaseShapes):
        def model(self, width: int) -> nn.Module:
            model = super().model(width)
            for block in model.blocks:
                fully_shard(block, mesh=mesh)
            return fully_shard(model, mesh=mesh)

    report = check_model(Sharded("transformer"), sizes=WIDTHS, base=0, seeds=(2,))
    found = measure(Candidate.of(Sharded("transformer")), "width", 32, 0, 1e-3, 1)
    if rank == 0:
        numbers = {key.name: change for key, change in found.change.items() if key.kind == "parameter"}
        Path(out).write_text(json.dumps([report.verdict, numbers]))
    destroy_process_group()


TWO = """
import sys
import torch.distributed.fsdp
from torch.multiprocessing import start_processes
from tests.own_model.test_own_model import sharded
start_processes(sharded, sys.argv[1:], nprocs=2, start_method="fork")
"""
"""One process imports torch for both."""


def test_sharded_parameters_give_the_numbers_of_whole_ones(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", TWO, str(tmp_path / "init"), str(out)], env=env, check=True, timeout=300)
    verdict, numbers = json.loads(out.read_text())
    whole = measure(Candidate.of(WithBaseShapes("transformer")), "width", 32, 0, 1e-3, 1)
    assert verdict in ("PASS", "INCONCLUSIVE")  # two seeds
    assert len(numbers) == sum(key.kind == "parameter" for key in whole.change)
    for name, change in numbers.items():
        assert change == pytest.approx(whole.change[Key("parameter", name)], rel=0.05)


class Convolutions(nn.Module):
    """Ordinary, depthwise and transposed convolutions in a Sequential, with weight norm in the readout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.net = nn.Sequential(
            *(nn.Conv2d(1, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            *(nn.Conv2d(width, width, 3, groups=width, bias=False), nn.BatchNorm2d(width)),
            *(nn.Conv2d(width, 2 * width, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(inplace=True)),
            nn.ConvTranspose2d(2 * width, width, 2, bias=False),
        )
        self.readout = nn.utils.parametrizations.weight_norm(nn.Linear(width, 10, bias=False))
        with torch.no_grad():
            self.net[8].weight.normal_(std=0.1 * (32 / width) ** 0.5)
            for part in self.readout.parametrizations.weight.parameters():
                part.mul_((width / 32) ** 0.5)

    def forward(self, image: Tensor) -> tuple[Tensor, None]:
        return self.readout(self.net(image[:, None]).mean((2, 3)) * (32 / self.width)), None


@pytest.mark.parametrize("forgotten", ["", "net.5.weight"])
def test_modules_of_other_shapes_in_a_sequential(forgotten: str) -> None:
    def optimizer(model: Any, lr: float) -> torch.optim.Optimizer:
        hidden = {"net.5.weight", "net.8.weight"} - {forgotten}
        rates = [(p, lr * 32 / model.width if name in hidden else lr) for name, p in model.named_parameters()]
        return torch.optim.Adam([{"params": [p], "lr": rate} for p, rate in rates])

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0])[0], batch[1])

    given = SimpleNamespace(model=Convolutions, optimizer=optimizer, loss=loss, batches=RIGHT.batches)
    report = check_model(given, sizes=WIDTHS)
    roles = {row.name: row.role for row in report.rows if row.kind == "parameter"}
    assert roles["net.8.weight"] == "hidden"
    assert roles["readout.parametrizations.weight.original1"] == "output"
    if forgotten:
        assert suspects(report) == [forgotten]
    else:
        assert report.verdict is Verdict.PASS, str(report)


def test_a_factor_at_the_base_is_a_fault() -> None:
    report = check_model(
        with_groups(lambda name, p, ratio: 0.5 if "gate." in name else 1.0), sizes=(64, 128), seeds=(2,)
    )
    assert report.verdict is Verdict.FAIL
    assert "layers.0.mlp.gate.weight is 0.5 times the given one" in report.faults[0]
    assert "training must be identical" in report.faults[1]


def test_a_multiplier_at_the_base_is_a_fault() -> None:
    made = WithBaseShapes("mlp")

    def model(width: int) -> nn.Module:
        changed = made.model(width)
        changed.readout.divisor *= 2
        return changed

    given = SimpleNamespace(
        model=model, plain=made.model, optimizer=made.optimizer, loss=made.loss, batches=made.batches
    )
    faults = check_model(given, sizes=(32, 64), seeds=(2,)).faults
    assert len(faults) == 1
    assert "of the plain model" in faults[0]


def test_roles_are_shown_and_can_be_declared_in_order() -> None:
    declared = {"readout": "free", "*weight": "hidden"}
    report = check_model(WithBaseShapes("mlp"), sizes=(32, 64), seeds=(2,), roles=declared)
    roles = {(row.kind, row.name): row.role for row in report.rows}
    assert roles["output", "readout"] == "free"
    assert roles["parameter", "first.weight"] == "hidden"
    assert "matches every parameter" in report.warnings[0]
    assert "hidden" in report.text(every=True)


class Ambiguous(WithBaseShapes):
    """A raw matrix in a module whose input and output grow: a router, or something that is added."""

    def model(self, width: int) -> nn.Module:
        class Raw(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table = nn.Parameter(torch.ones(4, width))

            def forward(self, x: Tensor) -> Tensor:
                return x + self.table.mean(0)

        model = super().model(width)
        model.hidden = nn.Sequential(model.hidden, Raw())
        return model

    def factor(self, name: str, p: Tensor) -> float:
        return 1.0


def test_a_role_that_growth_cannot_tell_is_asked_for() -> None:
    with pytest.raises(ModelError, match=r"the role of hidden.\*.table cannot be told"):
        check_model(Ambiguous("mlp"), sizes=(32, 64), seeds=(2,), base=0)
    report = check_model(Ambiguous("mlp"), sizes=(32, 64), seeds=(2,), base=0, roles={"hidden.1.table": "input"})
    assert any(row.name == "hidden.*.table" and row.role == "input" for row in report.rows)


def test_the_figure_and_the_json_carry_the_verdict() -> None:
    report = check_model(WithBaseShapes("mlp", shapes=False), sizes=WIDTHS, base=0)
    figure = plot_report(report)
    assert figure.get_suptitle().startswith("FAIL: width")
    assert [a.get_title(loc="left") for a in figure.axes][3].startswith("change of parameters (over their RMS): 2 of 3")
    found = json.loads(report.to_json())
    assert found["verdict"] == "FAIL"
    assert found["first_suspects"] == ["hidden.weight", "readout.weight"]
    worst = next(row["quantities"] for row in found["rows"])
    assert any(q["verdict"] == "FAIL" and math.isfinite(q["mean"]) for q in worst)


def audited(**changed: float) -> SimpleNamespace:
    """A mixture with a configuration, as the rule prescribes it from width 32, and the changes in its last group."""

    def scaled(model: nn.Module) -> Prescription:
        return get_rule("complete_mue").prescribe(*scenarios_of(model, REFERENCE, None)[:2])

    def model(width: int) -> nn.Module:
        made = ExampleMixture(ExampleConfig(hidden_size=width, moe_intermediate_size=width // 2))
        init_parameters(made, scaled(made), BASE)
        return made

    def optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
        groups = param_groups(model, scaled(model), BASE)
        groups[-1].update(changed)
        return torch.optim.AdamW(groups)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    def batches(seed: int) -> Iterator[Tensor]:
        yield torch.randint(64, (8, 17), generator=torch.Generator().manual_seed(seed))

    return SimpleNamespace(model=model, optimizer=optimizer, loss=loss, batches=batches)


def test_each_size_is_audited() -> None:
    options = {"sizes": (32, 64), "seeds": (2,), "base": 0, "lr": BASE.lr, "reference": REFERENCE, "values": BASE}
    right, wrong = (check_model(audited(**changed), **options).audits for changed in ({}, {"weight_decay": 0.7}))
    assert [each.size for each in right] == [32, 64]
    assert [each.report.verdict for each in right] == [Verdict.PASS, Verdict.PASS], str(right[0].report)
    assert {mismatch.check for each in wrong for mismatch in each.report.offences} == {"weight_decay"}


def raising(**_: object) -> nn.Module:
    raise ValueError("no checkpoint\nat all")


def stopping(**_: object) -> nn.Module:
    sys.exit(3)


def never(seed: int) -> Iterator[object]:
    return iter(())


def at_random(seed: int) -> Iterator[object]:
    images = np.random.default_rng().standard_normal((32, 8, 8), np.float32)
    yield torch.from_numpy(images), torch.arange(32) % 10


class Aside(nn.Module):
    """A layer in a plain list."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.aside = nn.Linear(64, width), [nn.Linear(width, 10)]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.aside[0](self.first(images.flatten(1)).relu())
        return logits


class WithoutRate:
    def __init__(self, model: nn.Module) -> None:
        self.param_groups = [{"params": list(model.parameters())}]

    def step(self) -> None: ...


RIGHT = WithBaseShapes("mlp")
BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no loss": ({"loss": None}, {}, "it has no loss"),
    "model is text": ({"model": "gpt"}, {}, "model is a str, not a function"),
    "no such axis": ({}, {"axis": "depth"}, "model cannot be called as model(depth=...)"),
    "model raises": ({"model": raising}, {}, "model(width=32) raises ValueError: no checkpoint (test_own_model.py"),
    "model exits": ({"model": stopping}, {}, "model(width=32) raises SystemExit: 3"),
    "no module": ({"model": lambda width: width}, {}, "returns an int, not a torch.nn.Module"),
    "no parameters": ({"model": lambda width: nn.ReLU()}, {}, "has no parameter that is trained"),
    "meta": ({"model": lambda width: nn.Linear(2, width, device="meta")}, {}, "parameters without values"),
    "optimizer without lr": ({"optimizer": lambda model: None}, {}, "optimizer(model, lr=...) raises TypeError"),
    "no optimizer": ({"optimizer": lambda model, lr: "adam"}, {}, "a str without step and param_groups"),
    "other parameters": (
        {"optimizer": lambda model, lr: torch.optim.Adam([nn.Parameter(torch.ones(1))])},
        {},
        "holds no parameter of the model",
    ),
    "scheduler": ({"scheduler": lambda optimizer: "cosine"}, {}, "scheduler returns a str without step"),
    "loss is a number": ({"loss": lambda model, batch: 1.0}, {}, "loss returns a float"),
    "loss is a vector": ({"loss": lambda model, batch: model(batch[0])}, {}, "tensor of shape [32, 10], not a scalar"),
    "loss is nan": ({"loss": lambda model, batch: model(batch[0]).sum() * torch.nan}, {}, "the loss is nan"),
    "no gradient": ({"loss": lambda model, batch: torch.ones(())}, {}, "the backward pass of the loss raises"),
    "no batches": ({"batches": never}, {}, "batches(0) is empty"),
    "layer in a list": ({"model": Aside}, {}, "on a trained tensor [10, 32] that is no parameter of the model"),
    "one tensor": ({"batches": lambda seed: torch.ones(2)}, {}, "must be an iterable of batches"),
    "one size": ({}, {"sizes": (32,)}, "sizes 32: give two or more"),
    "descending": ({}, {"sizes": (64, 32)}, "sizes 64, 32: give two or more, ascending"),
    "unknown role": ({}, {"roles": {"*": "body"}}, "unknown role 'body': allowed are input, hidden"),
    "unmatched role": ({}, {"roles": {"head.*": "output"}}, "'head.*' matches no parameter; there are"),
    "one seed": ({}, {"seeds": (1,)}, "seeds 1: ascending numbers from 2"),
    "no rate": ({}, {"lr": 0.0}, "lr 0: must be above 0"),
    "no use of the axis": ({"model": lambda width: RIGHT.model(32)}, {}, "train alike: the model does not use width"),
    "optimizer without a rate": ({"optimizer": lambda model, lr: WithoutRate(model)}, {}, "with a group without lr"),
    "batches at random": ({"batches": at_random}, {"base": 32}, "must draw from the seed alone"),
    "unit is a number": ({"unit": 2}, {}, "unit is an int, not a text"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_candidate_is_one_clear_line(name: str) -> None:
    changed, options, says = BAD[name]
    parts = {p: getattr(RIGHT, p) for p in ("model", "optimizer", "loss", "batches")}
    given = {p: value for p, value in {**parts, **changed}.items() if value is not None}
    with pytest.raises(ModelError) as error:
        check_model(given, **{"sizes": (32, 64), "seeds": (2,), **options})
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, figure = tmp_path / "set_up.py", tmp_path / "out.svg"
    file.write_text("from tests.own_model.mup_like import WithBaseShapes\nright = WithBaseShapes('mlp')\n")
    assert main(["model", f"{file}:right", "--sizes", "32,64,128", "--figure", str(figure)]) == 0
    assert "PASS: of 7 outputs and parameters" in capsys.readouterr().out
    assert "<svg" in figure.read_text()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("right = 3 +\n", "cannot be imported: SyntaxError"),
        ("import sys\nsys.exit(1)\n", "SystemExit: 1"),
        ("", "no model("),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ModelError) as error:
        check_model(f"{tmp_path}/mine.py", sizes=(32, 64))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
