"""``mue_check model --study``: drift, early curve and tune once of a user's own model, judged as the suites do."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mue_check.catalog import summarize, write_report
from mue_check.cli import main
from mue_check.judge.verdict import Verdict
from mue_check.own_model import Plan, Study, arm
from mue_check.own_model.candidate import Candidate, ModelError, load
from mue_check.own_model.training import train
from mue_check.own_model.transfer import ask_transfer
from mue_check.questions.own_optima import optima_of
from mue_check.questions.question import Finding
from tests.own_model.mup_like import Accumulated, WithBaseShapes
from tests.own_model.valley import BEST, Valley

FILE = Path(__file__).with_name("valley.py")
SIZES = (32, 64, 128)


def study(root: Path, **changed: Any) -> Study:
    given = {"plan": Plan(steps=1), "lr": 0.5, "ask": ("drift",), "seeds": (4, 6)}
    return Study(root=root, **{**given, **changed})


def ask(user: object, root: Path, sizes: tuple[int, ...] = SIZES, **changed: Any) -> list[Finding]:
    return ask_transfer(Candidate.of(user), "width", sizes, study(root, **changed))


def test_a_right_model_passes_and_a_drift_is_measured(tmp_path: Path) -> None:
    found = ask(Valley(), tmp_path / "right", ask=("tune_once", "drift"))
    assert [f.verdict for f in found] == [Verdict.PASS] * 3
    wrong = ask(Valley(exponent=0.5), tmp_path / "wrong", ask=("drift",), tolerance=0.25)
    assert [f.verdict for f in wrong] == [Verdict.FAIL] * 2
    (optima,) = optima_of(wrong)
    assert "width^+0.50" in optima.measured
    assert [row.cells[0] for row in optima.table.rows] == ["width=32", "width=64", "width=128"]
    rates = [float(row.cells[1].split()[0]) for row in optima.table.rows]
    assert rates == pytest.approx([BEST * 2 ** (i / 2) for i in range(3)], rel=0.1)


def test_what_is_stored_is_not_trained_again_and_is_judged_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask(Valley(exponent=1.0), tmp_path, ask=("tune_once", "drift"))

    def none(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(arm, "train", none)
    again = ask(Valley(exponent=1.0), tmp_path, ask=("tune_once", "drift"))
    assert [f.measured for f in again] == [f.measured for f in first]
    summary = summarize(tmp_path)
    assert summary.verdict is Verdict.FAIL
    page = write_report(tmp_path, summary).read_text()
    assert "Optimum of each size" in page
    assert "width^+1.00" in page
    with pytest.raises(AssertionError, match="trained again"):  # other numbers in the same code are another model
        ask(Valley(exponent=0.9), tmp_path)


def test_a_change_of_the_code_is_another_model(tmp_path: Path) -> None:
    file = tmp_path / "changing.py"
    sources = set()
    for text in ("", "# a comment\n"):
        file.write_text(FILE.read_text() + text)
        (found,) = ask_transfer(load(f"{file}:right"), "width", (32, 64), study(tmp_path / "study"))
        sources |= {key for side in found.comparison.sides for key in side.cells}
    assert len(sources) == 2 * len({key for side in found.comparison.sides for key in side.cells})


COMMAND = (
    sys.executable,
    "-m",
    "mue_check",
    "model",
    f"{FILE}:right",
    "--sizes",
    "32,128",
    "--steps",
    "1",
    "--lr",
    "0.5",
)


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        FILE.read_text().replace(
            "        with torch.no_grad():\n", "        sleep(0.03)\n        with torch.no_grad():\n"
        )
    )
    slow.write_text(f"from time import sleep\n{slow.read_text()}")
    command = [*COMMAND[:4], f"{slow}:right", *COMMAND[5:], "--ask", "drift", "--study", str(tmp_path / "study")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    cells = tmp_path / "study" / "cells"
    try:
        while len(list(cells.glob("*.json"))) < 10:
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(0.2)  # the child ends with its parent
    kept = {path.name: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert main([*command[3:]]) == 0
    after = {path.name: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert 10 <= len(kept) < len(after)
    assert {name: after[name] for name in kept} == kept
    log = "".join(path.read_text() for path in (tmp_path / "study" / "logs").iterdir())
    assert log.count("Z done in") == len(after)
    assert log.count("Z begins") <= len(after) + 1  # the one that was killed


def test_several_processes_share_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND[3:], "--ask", "tune_once,drift", "--study", str(tmp_path), "--processes", "2"]) == 0
    out = capsys.readouterr().out
    assert "optimal learning rate ~ width^" in out
    log = "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
    assert log.count("Z done in") == len(list((tmp_path / "cells").iterdir()))
    assert not list((tmp_path / "runs").iterdir())
    assert main(["report", str(tmp_path), "--quiet"]) == 0


class Scheduled:
    """A schedule that ends at zero."""

    told: list[int]

    def scheduler(self, optimizer: torch.optim.Optimizer, steps: int) -> object:
        self.told = [steps]
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)


class Real(Scheduled, WithBaseShapes):
    """The perceptron."""


class AccumulatedReal(Scheduled, Accumulated):
    """The same from gradients that are added up."""


def test_a_schedule_and_accumulated_gradients_count() -> None:
    plan = Plan(steps=6)
    real, constant = Real("mlp"), WithBaseShapes("mlp")
    whole = train(Candidate.of(real), "width", 32, 0, 0.01, plan)
    assert real.told == [6]
    parts = train(Candidate.of(AccumulatedReal("mlp")), "width", 32, 0, 0.01, plan)
    without = train(Candidate.of(constant), "width", 32, 0, 0.01, plan)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-3)
    assert parts.held_out == pytest.approx(whole.held_out, rel=1e-3)
    assert without.losses[:2] == whole.losses[:2]
    assert without.held_out != whole.held_out


def test_the_early_curve_of_a_real_training(tmp_path: Path) -> None:
    found = ask(Real("mlp"), tmp_path, (32, 64), plan=Plan(steps=20), lr=0.01, ask=("early",))
    assert [f.verdict for f in found] == [Verdict.PASS], found[0].measured
    assert summarize(tmp_path).verdict is Verdict.PASS


def test_batches_held_out_are_used(tmp_path: Path) -> None:
    class Held(Valley):
        def held_out(self, seed: int) -> Iterator[Tensor]:
            for _ in range(8):
                yield torch.tensor(3.0)

    plan = Plan(steps=1)
    own, other = (train(Candidate.of(user), "width", 32, 0, BEST, plan).held_out for user in (Valley(), Held()))
    assert own == pytest.approx(2, abs=0.05)
    assert other == pytest.approx(2 + 0.1 * 9)


def test_a_run_that_diverges_is_no_error(tmp_path: Path) -> None:
    class Diverging(Valley):
        def loss(self, model: Any, batch: Tensor) -> Tensor:
            return super().loss(model, batch) + (torch.inf if float(model.weight.detach().mean()) > 4 * BEST else 0)

    found = ask(Diverging(), tmp_path, (32, 64), lr=BEST)
    assert [f.verdict for f in found] == [Verdict.PASS], found[0].measured


def broken(says: str, **changed: Any) -> tuple[str, dict[str, Any]]:
    return says, changed


def raising_later(model: Any, batch: Tensor) -> Tensor:
    if float(model.weight.detach().mean()) > 1:
        raise ValueError("bad\nlabels")
    return Valley().loss(model, batch)


def drawn_anew(seed: int) -> Iterator[Tensor]:
    while True:
        yield torch.tensor(float(next(NUMBERS)))


def model_anew(width: int) -> nn.Module:
    model = Valley().model(width)
    with torch.no_grad():
        model.weight.fill_(next(NUMBERS))
    return model


NUMBERS = itertools.count(1)
"""Another one for whoever asks again."""


class Stuck:
    def step(self) -> None:
        raise RuntimeError("no steps left")


BROKEN = [
    broken("loss(model, batch) raises ValueError: bad (test_study.py", loss=raising_later),
    broken("the loss is nan", loss=lambda model, batch: model(batch) * torch.nan),
    broken("loss returns a float", loss=lambda model, batch: 1.0),
    broken("batches(0) ends after 3 batches, and a run needs 9", batches=lambda seed: iter([torch.zeros(())] * 3)),
    broken("held_out(0) ends after 1 batches, and a run needs 8", held_out=lambda seed: [torch.zeros(())]),
    broken("held_out returns an int", held_out=lambda seed: 3),
    broken("batches(0) gives other data when it is called again", batches=drawn_anew, model=model_anew),
    broken("two runs of seed 0 differ", model=model_anew),
    broken("does not use lr", optimizer=lambda model, lr: torch.optim.SGD(model.parameters(), 0.1)),
    broken("no steps left", scheduler=lambda optimizer: Stuck()),
    broken("scheduler(optimizer) raises", scheduler=lambda optimizer, steps, more: Stuck()),
    broken("step(model, optimizer, batch) raises TypeError", step=lambda model: None),
    broken("does not use lr", step=lambda model, optimizer, batch: None),
    broken("model(width=64) raises KeyError", model=lambda width: {32: Valley().model(32)}[width]),
]


@pytest.mark.parametrize(("says", "changed"), BROKEN, ids=range(len(BROKEN)))
def test_what_breaks_in_a_study_is_one_clear_line(says: str, changed: dict[str, Any], tmp_path: Path) -> None:
    parts = {name: getattr(Valley(), name) for name in ("model", "optimizer", "loss", "batches", "step")}
    with pytest.raises(ModelError) as error:
        ask(SimpleNamespace(**{**parts, **changed}), tmp_path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"ask": ("drifts",)},
            "unknown question 'drifts' .did you mean 'drift'..: allowed are early, tune_once, drift",
        ),
        ({"seeds": (2, 8)}, "needs at least 4"),
        ({"plan": Plan(steps=0)}, "steps 0"),
        ({"tolerance": 0.0}, "must be above 0"),
    ],
)
def test_a_bad_study_is_one_clear_line(changed: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=says):
        study(tmp_path, **changed)


def test_the_command_needs_the_length_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", f"{FILE}:right", "--sizes", "32,64", "--study", str(tmp_path)]) == 2
    assert "--study: give --steps" in capsys.readouterr().err


def test_global_generators_are_seeded(tmp_path: Path) -> None:
    class Drawn(Valley):
        def batches(self, seed: int) -> Iterator[Tensor]:
            while True:
                yield torch.tensor(0.1 * random.random() + 0.1 * np.random.rand()) + 0.1 * torch.rand(())  # noqa: NPY002

    runs = [train(Candidate.of(Drawn()), "width", 32, 3, BEST, Plan(steps=1)).held_out for _ in range(2)]
    assert runs[0] == runs[1]
