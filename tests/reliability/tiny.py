"""Cells that train in a tenth of a second, for campaigns that need many runs."""

from dataclasses import replace
from pathlib import Path

from mue_check import Dense, HyperParameters, ModelSpec, TrainSpec
from mue_check.data import load_data
from mue_check.records import Cell
from tests.studies import make_cell

MODEL = ModelSpec(width=16, depth=1, feed_forward=Dense(hidden=16))
TRAIN = TrainSpec(steps=8, batch=2, context=8)


def tiny_cells(number: int) -> list[Cell]:
    """Loss grids of three learning rates, one seed each."""
    cell = make_cell(
        MODEL,
        TRAIN,
        base=HyperParameters(init_std=0.1),
        corpus_fingerprint=load_data("markov").fingerprint,
        values=(2.0**-7, 2.0**-6, 2.0**-5),
    )
    return [replace(cell, seeds=(seed,)) for seed in range(number)]


def leftovers(root: Path) -> list[Path]:
    """Temporary files in a study."""
    return [path for path in root.rglob(".*") if path.name.endswith(".part")]
