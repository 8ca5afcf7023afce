"""A study's verdicts and curves in TensorBoard, MLflow and W&B, read back from what these write."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from mue_check.cli import main
from mue_check.errors import MueCheckError
from mue_check.judge.drift import judge_drift
from mue_check.judge.optimum import Curve
from mue_check.overview.trackers import tracked, write_to
from mue_check.questions.drift import DriftFinding
from mue_check.questions.question import Findings
from mue_check.questions.summary import Summary
from mue_check.study.comparison import Side
from tests.studies import comparison_of

GRID = np.array([-9.75, -9.0, -8.25, -7.5, -6.75, -6.0, -5.25])


def curve(optimum: float) -> Curve:
    seeds = np.arange(4)
    losses = 2.0 + 0.1 * (GRID - optimum - 0.01 * seeds[:, None]) ** 2
    losses[0, -1] = np.inf
    return Curve(values=2**GRID, seeds=tuple(range(4)), losses=losses, initial=np.full(4, 3.5))


@pytest.fixture
def summary() -> Summary:
    sides = tuple(Side(label=label, size=size, model=label, cells=()) for label, size in (("d32", 32), ("d64", 64)))
    c = comparison_of(*sides, name="width-d64")
    reference, target = curve(-7.5), curve(-7.4)
    drift = judge_drift(reference, target, 0.5, 0.0, (4,))
    found = DriftFinding(comparison=c, verdict=drift.verdict, reference=reference, target=target, drift=drift)
    empty = {"axes": (), "asked": (), "comparisons": (), "answers": (), "costs": None, "environments": {}}
    return Summary(name="study", findings=Findings((found,)), unfinished=(), **empty)  # type: ignore[arg-type]


def test_what_is_tracked(summary: Summary) -> None:
    (question,) = tracked(summary)
    assert question.values["verdict"] == 1
    assert question.values["drift"] == pytest.approx(0.1, abs=0.02)
    assert question.values["drift_low"] <= question.values["drift"] <= question.values["drift_high"]
    assert question.curves["log2_value/target"] == pytest.approx(GRID)
    assert np.isnan(question.curves["loss/target"][-1])  # a seed diverged there


def test_tensorboard(summary: Summary, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert write_to(f"tensorboard:{tmp_path}", summary) == 1
    events = EventAccumulator(str(tmp_path / "study" / "width-d64")).Reload()
    assert [e.value for e in events.Scalars("verdict")] == [1]
    (question,) = tracked(summary)
    losses = {e.step: e.value for e in events.Scalars("loss/target")}
    assert losses == pytest.approx(dict(enumerate(question.curves["loss/target"][:-1])))


def test_mlflow_in_files(summary: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert write_to(f"mlflow:file:{tmp_path}", summary) == 1
    (run,) = mlflow.search_runs(experiment_names=["study"], output_format="list")
    assert run.data.tags["verdict"] == "PASS"
    assert run.data.metrics["drift"] == pytest.approx(0.1, abs=0.02)
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss/reference")
    assert [point.step for point in history] == [0, 1, 2, 3, 4, 5]


def test_wandb_offline(summary: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="needs wandb")
    monkeypatch.chdir(tmp_path)
    assert write_to("wandb:mue", summary) == 1
    wandb.teardown()  # its process writes what it still holds
    (stored,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"width-d64" in stored.read_bytes()


@pytest.mark.parametrize("where", ["excel:x", "tensorboard", "tensorboard:"])
def test_unknown_trackers_are_refused(where: str, summary: Summary) -> None:
    with pytest.raises(MueCheckError, match="must be tensorboard:PLACE, mlflow:PLACE, wandb:PLACE"):
        write_to(where, summary)


def test_a_tracker_that_is_not_installed_is_named(summary: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(MueCheckError, match="needs wandb, which is not installed"):
        write_to("wandb:mue", summary)


def test_the_command_refuses_what_is_no_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        assert main(["log", str(tmp_path), "--to", "tensorboard:x"]) == 2
    assert "holds no study" in capsys.readouterr().err
