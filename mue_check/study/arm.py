"""An arm: one model under one prescription on one corpus, and the cells that measure it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mue_check.data import load_data
from mue_check.precision import Precision
from mue_check.records import AnyCell, Cell, Store
from mue_check.rules import HyperParameters, Knob, Prescription
from mue_check.spec import ModelSpec, TrainSpec


class AnyArm(Protocol):
    """What a question needs to know of an arm: one of a reference model (``Arm``), or of a user's own."""

    @property
    def first_seed(self) -> int:
        """The seed of replicate 0."""

    @property
    def knob(self) -> Knob:
        """What is swept."""

    @property
    def base_value(self) -> float:
        """The value that is tuned once."""

    @property
    def described(self) -> str:
        """Model and training in one line, as its cells name them."""

    def cells(
        self, measurement: str, values: Iterable[float], replicates: Iterable[int], steps: Sequence[int] = ()
    ) -> Sequence[AnyCell]:
        """The cells of one measurement."""

    def measure(self, cells: Sequence[Any], store: Store) -> None:
        """Train and store those cells of arms of this kind that are not stored yet."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is swept, and over which ``knob``. Replicate i trains with seed ``first_seed`` + i; arms pair by replicate.

    ``flaw`` names a mistake made on purpose. ``load_scaling`` is the strength at which each expert's update is scaled
    with its load (``records.Cell``).
    """

    model: ModelSpec
    prescription: Prescription
    base: HyperParameters
    train: TrainSpec
    corpus: str
    first_seed: int = 0
    knob: Knob = "lr"
    flaw: str = ""
    load_scaling: float = 0.0
    device: str = "cpu"
    precision: Precision = "fp32"

    def cell(
        self,
        measurement: str,
        values: Iterable[float],
        replicates: Iterable[int],
        steps: Sequence[int] = (),
        loads: Sequence[str] = (),
    ) -> Cell:
        """One measurement of this arm."""
        return Cell(
            measurement=measurement,
            model=self.model,
            prescription=self.prescription,
            base=self.base,
            train=self.train,
            corpus=self.corpus,
            corpus_fingerprint=load_data(self.corpus).fingerprint,
            values=tuple(values),
            seeds=tuple(self.first_seed + i for i in replicates),
            steps=tuple(steps),
            knob=self.knob,
            flaw=self.flaw,
            loads=tuple(loads),
            load_scaling=self.load_scaling,
            device=self.device,
            precision=self.precision,
        )

    @property
    def base_value(self) -> float:
        """The tuned learning rate."""
        return self.base.lr

    @property
    def described(self) -> str:
        """Model and training."""
        return f"{self.model},{self.train}"

    def cells(
        self, measurement: str, values: Iterable[float], replicates: Iterable[int], steps: Sequence[int] = ()
    ) -> list[Cell]:
        """One cell: its runs train as one stack."""
        return [self.cell(measurement, values, replicates, steps)]

    def measure(self, cells: Sequence[Cell], store: Store) -> None:
        """Train and store the cells that are not stored yet."""
        measure(cells, store)


def measure(cells: Sequence[Cell], store: Store) -> None:
    """Train and store the cells that are not stored yet."""
    from mue_check.execute import ensure  # imports torch, which a report does without

    ensure(cells, store)
