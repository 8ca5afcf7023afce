"""A study with simulated losses. Running the suites' own questions on it shows which cells they need.

The search, the added seeds and the judge are the real ones. A loss that is not stored is drawn from the measured
spreads: a parabola around an optimum that is random per arm and seed. Other measurements cannot be simulated; a
question that reads one ends there, after it has requested its cells.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from mue_check.execute.batches import Batch, make_batches
from mue_check.models.parameters import stable_seed
from mue_check.records import AnyCell, Cell, Store
from mue_check.records.files import read_json
from mue_check.records.typed import from_json
from mue_check.rules import base_value
from mue_check.study.comparison import Comparison
from mue_check.study.folder import Study

MARKOV, TEXT = "markov", "text"
OWN, OTHER = "complete_mue", "other"


@dataclass(frozen=True, kw_only=True)
class Spreads:
    """Spreads in the packed studies of reports/ (bench/plan_spreads.py), pooled over rules and targets.

    ``drift_sd`` is the standard deviation of the drift over seeds, by ladder (``ladder:knob`` for knobs other than the
    learning rate) and by kind of corpus, and ``power_sd`` the one that ``judge.power`` uses. ``drifts`` are the mean
    drifts of all targets under the rule and under others. ``offset_rms`` is the distance of the reference's optimum
    from the tuned value, where its search starts.
    """

    made_by: str
    drift_sd: Mapping[str, float]
    power_sd: Mapping[str, float]
    drifts: Mapping[str, Sequence[float]]
    offset_rms: float

    def of_corpus(self, corpus: str) -> list[float]:
        """Standard deviations of drifts on a corpus: one per ladder on the Markov source, a single one on text."""
        if _kind(corpus) == TEXT:
            return [self.drift_sd[TEXT]]
        return [sd for name, sd in self.drift_sd.items() if name not in (MARKOV, TEXT)]

    def for_power(self, ladder: str, knob: str, corpus: str) -> float:
        """The standard deviation of a ladder if it was measured, else that of the corpus."""
        name = ladder if knob == "lr" else f"{ladder}:{knob}"
        kind = _kind(corpus)
        return self.power_sd.get(name, self.power_sd[kind]) if kind == MARKOV else self.power_sd[kind]


def _kind(corpus: str) -> str:
    return MARKOV if corpus == MARKOV else TEXT


@cache
def measured_spreads() -> Spreads:
    """The spreads that come with the package."""
    path = Path(__file__).with_name("spreads.json")
    return from_json(Spreads, read_json(path), str(path))


CURVATURE = 0.05
"""Curvature of the simulated parabolas, in nats per octave squared. It does not affect where the optimum lies."""
FLOOR = 100.0
"""Lowest simulated loss, in nats: above any stored one, so that a simulated value does not draw the search away from
stored ones."""


class NotSimulated(Exception):
    """The question reads a measurement that is not stored and cannot be simulated."""


@dataclass(frozen=True, kw_only=True)
class NewCells:
    """The cells that a question needs and no earlier question did: batches to train, and how many are stored."""

    batches: tuple[Batch, ...]
    stored: int


class SimulatedStore(Store):
    """A store that has every cell. It notes those that are not stored, in the batches in which they would train."""

    def __init__(self, root: Path, spreads: Spreads) -> None:
        super().__init__(root)
        self.spreads = spreads
        self._cells: dict[str, Cell] = {}
        self._stored_keys: set[str] = set()
        self._tables: dict[str, pd.DataFrame] = {}
        self._missing: list[Cell] = []
        self._batches: list[Batch] = []
        self._stored = 0

    def has(self, cell: AnyCell) -> bool:
        """Note the cell, which is of a reference model, and return True."""
        assert isinstance(cell, Cell)
        key = cell.key
        if key not in self._cells:
            self._cells[key] = cell
            if super().has(cell):
                self._stored_keys.add(key)
                self._stored += 1
            else:
                self._missing.append(cell)
        return True

    def rows(self, key: str) -> pd.DataFrame:
        """The stored table, or a simulated one."""
        self._close_batches()
        if key not in self._tables:
            stored = key in self._stored_keys
            self._tables[key] = super().rows(key) if stored else self._simulate(self._cells[key])
        return self._tables[key]

    def take_new(self) -> NewCells:
        """The cells that were requested since the last call."""
        self._close_batches()
        new = NewCells(batches=tuple(self._batches), stored=self._stored)
        self._batches, self._stored = [], 0
        return new

    def _close_batches(self) -> None:
        """Cells that were requested together train together."""
        self._batches += make_batches(self._missing)
        self._missing = []

    def _simulate(self, cell: Cell) -> pd.DataFrame:
        if cell.measurement != "loss_grid":
            raise NotSimulated(cell.measurement)
        arm = cell.shape
        optimum = _reference_optimum(cell, self.spreads) + _drift(cell, arm, self.spreads)
        sds = self.spreads.of_corpus(cell.corpus)
        sd = sds[stable_seed(arm, "sd") % len(sds)] / math.sqrt(2)
        rows = []
        for seed in cell.seeds:
            own = optimum + sd * _draw(arm, "seed", seed)
            losses = [FLOOR + CURVATURE * (math.log2(value) - own) ** 2 for value in cell.values]
            rows += [(seed, value, math.inf, loss) for value, loss in zip(cell.values, losses, strict=True)]
        return pd.DataFrame(rows, columns=["seed", "value", "initial", "loss"])


def _reference_optimum(cell: Cell, spreads: Spreads) -> float:
    """log2 of the reference's optimum: close to the tuned value, where its search starts."""
    base = base_value(cell.knob, cell.base)
    return math.log2(base) + spreads.offset_rms * _draw(str(cell.prescription.reference), cell.corpus, cell.knob, base)


def _drift(cell: Cell, arm: str, spreads: Spreads) -> float:
    prescription = cell.prescription
    if prescription.reference == prescription.target:
        return 0.0
    measured = spreads.drifts[OWN if prescription.rule.startswith(OWN) else OTHER]
    return measured[stable_seed(arm, "drift") % len(measured)]


def _draw(*of: object) -> float:
    """A standard normal number, always the same for the same arguments."""
    return float(np.random.default_rng(stable_seed(*map(str, of))).standard_normal())


@dataclass(frozen=True, kw_only=True)
class SimulatedStudy(Study):
    """A study that reads a simulated store and writes nothing."""

    simulated: SimulatedStore

    @classmethod
    def of(cls, study: Study, store: SimulatedStore) -> "SimulatedStudy":
        """A copy of the study with that store."""
        return cls(**{f.name: getattr(study, f.name) for f in fields(Study)}, simulated=store)

    @property
    def store(self) -> Store:
        """The simulated store."""
        return self.simulated

    def open(self, question: Comparison) -> None:
        """List nothing, since nothing is measured."""

    def save(self, answer: Comparison) -> None:
        """Keep nothing, since nothing was measured."""
