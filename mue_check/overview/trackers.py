"""A study's verdicts and loss curves in an experiment tracker: TensorBoard, MLflow or W&B, all without a network."""

import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mue_check.errors import MueCheckError
from mue_check.judge.optimum import Curve
from mue_check.judge.verdict import Verdict
from mue_check.questions.drift import DriftFinding
from mue_check.questions.summary import Summary

_SCORES = {Verdict.PASS: 1, Verdict.RESIDUAL: 1, Verdict.INCONCLUSIVE: 0, Verdict.FAIL: -1}


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """One question: its values by name, its curves by name, and what it is about."""

    name: str
    values: Mapping[str, float]
    about: Mapping[str, str]
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def tracked(summary: Summary) -> Iterator[Tracked]:
    """Every answered question that is judged, in the order of the report."""
    for finding in summary.findings.found:
        if (verdict := finding.verdict) is None:
            continue
        c = finding.comparison
        values: dict[str, float] = {"verdict": _SCORES[verdict]}
        curves: dict[str, tuple[float, ...]] = {}
        if isinstance(finding, DriftFinding):
            interval = finding.drift.interval
            values |= {"drift": interval.mean, "drift_low": interval.low, "drift_high": interval.high}
            for role, curve in (("reference", finding.reference), ("target", finding.target)):
                curves |= {f"loss/{role}": _mean_losses(curve), f"log2_value/{role}": tuple(map(float, curve.x))}
        about = {"axis": c.axis, "ladder": c.ladder, "target": finding.side.label, "corpus": c.corpus, "rule": c.rule}
        about |= {"knob": c.knob, "expected": c.expected, "verdict": verdict.value, "measured": finding.measured}
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        yield Tracked(name=c.name, values=finite, about=about, curves=curves)


def write_to(where: str, summary: Summary) -> int:
    """Write a study to ``NAME:PLACE`` and return the number of questions. MueCheckError: unknown, or not installed."""
    name, _, place = where.partition(":")
    if name not in _TRACKERS or not place:
        raise MueCheckError(f"--to {where!r}: must be {', '.join(f'{known}:PLACE' for known in _TRACKERS)}")
    questions = tuple(tracked(summary))
    try:
        _TRACKERS[name](place, summary.name, questions)
    except ModuleNotFoundError as error:
        raise MueCheckError(f"--to {where!r}: needs {error.name}, which is not installed") from None
    except Exception as error:  # each tracker raises its own errors
        raise MueCheckError(f"--to {where!r}: {error}") from error
    return len(questions)


def _mean_losses(curve: Curve) -> tuple[float, ...]:
    return tuple(map(float, np.where(curve.diverged, np.nan, curve.losses).mean(axis=0)))


def _by_step(question: Tracked) -> Mapping[int, dict[str, float]]:
    """The finite points of all curves, by step."""
    points: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for name, curve in question.curves.items():
        for step, value in enumerate(curve):
            if math.isfinite(value):
                points[step][name] = value
    return points


def _tensorboard(folder: str, study: str, questions: tuple[Tracked, ...]) -> None:
    import_module("tensorboard")
    writer_of: Any = import_module("torch.utils.tensorboard").SummaryWriter
    for question in questions:
        with writer_of(log_dir=str(Path(folder) / study / question.name)) as writer:
            for name, value in question.values.items():
                writer.add_scalar(name, value, 0)
            for step, points in _by_step(question).items():
                for name, value in points.items():
                    writer.add_scalar(name, value, step)
            writer.add_text("answer", "\n".join(f"- {name}: {text}" for name, text in question.about.items()))


def _mlflow(address: str, study: str, questions: tuple[Tracked, ...]) -> None:
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # the user chose to write files
    mlflow: Any = import_module("mlflow")
    mlflow.set_tracking_uri(address)
    mlflow.set_experiment(study)
    for question in questions:
        with mlflow.start_run(run_name=question.name):
            mlflow.set_tags(question.about)
            mlflow.log_metrics(question.values)
            for step, points in _by_step(question).items():
                mlflow.log_metrics(points, step=step)


def _wandb(project: str, study: str, questions: tuple[Tracked, ...]) -> None:
    """One run: a run for each question would take a second each."""
    wandb: Any = import_module("wandb")
    run = wandb.init(project=project, name=study, mode="offline", settings=wandb.Settings(silent=True))
    about = list(dict.fromkeys(name for question in questions for name in question.about))
    rows = [[question.name, *(question.about.get(name, "") for name in about)] for question in questions]
    run.log({"verdicts": wandb.Table(columns=["question", *about], data=rows)})
    at: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for question in questions:
        for step, points in _by_step(question).items():
            at[step] |= {f"{question.name}/{name}": value for name, value in points.items()}
        run.summary.update({f"{question.name}/{name}": value for name, value in question.values.items()})
    for step in sorted(at):
        run.log(at[step])
    run.finish()


_TRACKERS: Mapping[str, Callable[[str, str, tuple[Tracked, ...]], None]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
