"""A study whose losses are imagined: the suites' own questions, asked of it, say which cells they will want.

Search, seeds and judge are the real ones. Only a loss that no record holds is made up, from the measured spreads: a
parabola around an optimum that is drawn per arm and seed. A question that reads anything else that is not recorded
ends there, with the cells that it has asked for.
"""

import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from mue_check.cost.spreads import OTHER, OWN, Spreads
from mue_check.execute.batches import Batch, make_batches
from mue_check.models.parameters import stable_seed
from mue_check.questions.comparison import Comparison
from mue_check.questions.study import Study
from mue_check.records import Cell, Store

CURVATURE = 0.05
"""Of the imagined parabolas, in nats per octave squared; where it lies decides everything, how deep it is nothing."""


class Unforeseen(Exception):
    """What a question wants to read next was never measured, and cannot be imagined."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What one question wants beyond those before it: batches to train, and how many cells are recorded already."""

    batches: tuple[Batch, ...]
    stored: int


class ImaginedStore(Store):
    """Has every cell. Those that the real store lacks are noted, in the batches in which they would be trained."""

    def __init__(self, root: Path, spreads: Spreads) -> None:
        super().__init__(root)
        self.spreads = spreads
        self._known: dict[str, Cell] = {}
        self._real: set[str] = set()
        self._tables: dict[str, pd.DataFrame] = {}
        self._open: list[Cell] = []
        self._batches: list[Batch] = []
        self._stored = 0

    def has(self, cell: Cell) -> bool:
        """True, and the cell is noted."""
        key = cell.key
        if key not in self._known:
            self._known[key] = cell
            if super().has(cell):
                self._real.add(key)
                self._stored += 1
            else:
                self._open.append(cell)
        return True

    def rows(self, key: str) -> pd.DataFrame:
        """The recorded table, or an imagined one."""
        self._close()
        if key not in self._tables:
            self._tables[key] = super().rows(key) if key in self._real else self._imagine(self._known[key])
        return self._tables[key]

    def take(self) -> Wanted:
        """What was wanted since the last call."""
        self._close()
        wanted = Wanted(batches=tuple(self._batches), stored=self._stored)
        self._batches, self._stored = [], 0
        return wanted

    def _close(self) -> None:
        """What was asked for in one go trains in one go."""
        self._batches += make_batches(self._open)
        self._open = []

    def _imagine(self, cell: Cell) -> pd.DataFrame:
        if cell.measurement != "loss_grid":
            raise Unforeseen(cell.measurement)
        arm = cell.shape
        optimum = _reference_optimum(cell, self.spreads) + _drift(cell, arm, self.spreads)
        sds = self.spreads.of_corpus(cell.corpus)
        sd = sds[stable_seed(arm, "sd") % len(sds)] / math.sqrt(2)
        rows = []
        for seed in cell.seeds:
            own = optimum + sd * _draw(arm, "seed", seed)
            losses = [CURVATURE * (math.log2(value) - own) ** 2 for value in cell.values]
            rows += [(seed, value, math.inf, loss) for value, loss in zip(cell.values, losses, strict=True)]
        return pd.DataFrame(rows, columns=["seed", "value", "initial", "loss"])


def _reference_optimum(cell: Cell, spreads: Spreads) -> float:
    """log2 of the optimum of the model whose values are carried: near the tuned one, where its search begins."""
    base = getattr(cell.base, cell.knob)
    return math.log2(base) + spreads.offset_rms * _draw(str(cell.prescription.reference), cell.corpus, cell.knob, base)


def _drift(cell: Cell, arm: str, spreads: Spreads) -> float:
    prescription = cell.prescription
    if prescription.reference == prescription.target:
        return 0.0
    measured = spreads.drifts[OWN if prescription.rule.startswith(OWN) else OTHER]
    return measured[stable_seed(arm, "drift") % len(measured)]


def _draw(*of: object) -> float:
    """A standard normal number, always the same for the same things."""
    return float(np.random.default_rng(stable_seed(*map(str, of))).standard_normal())


@dataclass(frozen=True, kw_only=True)
class ImaginedStudy(Study):
    """A study that asks an imagined store, and leaves nothing behind."""

    imagined: ImaginedStore

    @classmethod
    def of(cls, study: Study, store: ImaginedStore) -> "ImaginedStudy":
        """The same questions, asked of that store."""
        return cls(**{f.name: getattr(study, f.name) for f in fields(Study)}, imagined=store)

    @property
    def store(self) -> Store:
        """The imagined records."""
        return self.imagined

    def keep(self, comparison: Comparison) -> None:
        """Nothing was measured."""
