"""Studies of tier smoke on the Markov source, and cells, for tests that ask, store or train a little."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mue_check import Dense, HyperParameters, ModelSpec, Scenario, TrainSpec, get_rule
from mue_check.axes import Ladder, Rung
from mue_check.axes.scale import dense
from mue_check.catalog import get_tier
from mue_check.records import Cell, Store
from mue_check.study.comparison import Comparison, Side
from mue_check.study.folder import Study

RUNGS = [Rung(label=f"d{d}", size=d, model=dense(d, 1)) for d in (32, 64)]
LADDER = Ladder(axis="width", name="width", reference=RUNGS[0], targets=tuple(RUNGS[1:]))
MODEL = ModelSpec(width=32, depth=1, feed_forward=Dense(hidden=32))
TRAIN = TrainSpec(steps=10, batch=2)


def study_at(root: Path, **changes: Any) -> Study:
    """A study whose folders exist."""
    usual = {"tier": get_tier("smoke"), "corpus": "markov", "rule": get_rule("complete_mue"), "tolerance": 0.5}
    study = Study(**{"root": root, "command": "pytest x", **usual, **changes})
    study.store.prepare()
    return study


def new_store(root: Path) -> Store:
    """A store whose folders exist."""
    store = Store(root)
    store.prepare()
    return store


def records(root: Path) -> dict[str, bytes]:
    """The cells of a study. What a cell cost is left out: it varies."""
    return {path.name: path.read_bytes() for path in sorted((root / "cells").glob("*.json"))}


def comparison_of(*sides: Side, **changes: Any) -> Comparison:
    """A drift along width that is expected to pass."""
    usual = {"kind": "drift", "axis": "width", "ladder": "width", "tolerance": 0.5, "expected": "PASS"}
    setting = {"corpus": "markov", "rule": "complete_mue", "router": "sigmoid_norm", "tier": "smoke"}
    return Comparison(**{"name": "drift", "command": "pytest", **usual, **setting, "sides": sides, **changes})


def make_cell(model: ModelSpec = MODEL, train: TrainSpec = TRAIN, **changes: Any) -> Cell:
    """A loss grid of two values and one seed."""
    scenario = Scenario.of(model, train)
    cell = Cell(
        measurement="loss_grid",
        model=model,
        prescription=get_rule("complete_mue").prescribe(scenario, scenario),
        base=HyperParameters(),
        train=train,
        corpus="markov",
        corpus_fingerprint="abc",
        values=(0.01, 0.02),
        seeds=(0,),
    )
    return replace(cell, **changes)
