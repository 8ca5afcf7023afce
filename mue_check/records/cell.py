"""A cell: one measurement of one model under one prescription. Its key hashes everything that affects the result."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from mue_check.precision import Precision
from mue_check.rules import HyperParameters, Knob, Prescription
from mue_check.spec import ModelSpec, TrainSpec

SCHEMA = 2
"""Version of the file format."""
MEASURING = 3
"""Version of the measuring code: raise it when a change gives other numbers for the same cell."""

Content = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class AnyCell(ABC):
    """What the store, the locks and the log know of a cell. ``measurement`` names its table (``records.tables``)."""

    measurement: str
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    steps: tuple[int, ...] = ()
    device: str = "cpu"

    @property
    @abstractmethod
    def content(self) -> Content:
        """Everything that affects the numbers, as plain JSON values."""

    @property
    @abstractmethod
    def rule(self) -> str:
        """The name of what sets the values of each size."""

    @property
    @abstractmethod
    def about(self) -> str:
        """The model, its training and its data, in one line."""

    @property
    def key(self) -> str:
        """20 hexadecimal digits, equal for equal content on every machine."""
        return content_key(self.content)

    @property
    def runs(self) -> int:
        """The number of runs."""
        return len(self.values) * len(self.seeds)


@dataclass(frozen=True, kw_only=True)
class Cell(AnyCell):
    """What to measure: one run for each pair of ``values`` and ``seeds``, all in one stack.

    ``values`` replace the base value of the swept ``knob`` in ``base``. ``measurement`` is a name in
    ``mue_check.measure``, and ``steps`` are the steps at which it measures (empty: only at the end). ``flaw`` names a
    deliberate mistake (``training.flaws``). ``loads`` are target loads for measurements of the frozen weights (empty:
    the load of training). ``load_scaling``, from 0 to 1, is how strongly each expert's update is scaled with its load
    (``training.load_scaling``). The content holds the rule's factors but not its name, so a corrected rule gets new
    cells.
    """

    model: ModelSpec
    prescription: Prescription
    base: HyperParameters
    train: TrainSpec
    corpus: str
    corpus_fingerprint: str
    knob: Knob = "lr"
    flaw: str = ""
    loads: tuple[str, ...] = ()
    load_scaling: float = 0.0
    precision: Precision = "fp32"

    @property
    def content(self) -> Content:
        """Everything that affects the numbers, as plain JSON values."""
        return {
            "schema": SCHEMA,
            "measuring": MEASURING,
            "measurement": self.measurement,
            "model": asdict(self.model),
            "factors": {str(role): asdict(f) for role, f in self.prescription.factors.items()},
            "base": asdict(self.base),
            "train": asdict(self.train),
            "corpus": self.corpus_fingerprint,
            "knob": self.knob,
            "values": list(self.values),
            "seeds": list(self.seeds),
            "steps": list(self.steps),
            "flaw": self.flaw,
            "loads": list(self.loads),
            "load_scaling": self.load_scaling,
            "device": self.device,
        } | ({"precision": self.precision} if self.precision != "fp32" else {})

    @property
    def rule(self) -> str:
        """The name of the transfer rule."""
        return self.prescription.rule

    @property
    def about(self) -> str:
        """The model, its training and its corpus, in one line."""
        return f"{self.model} {self.train} on {self.corpus}, rule {self.rule}"

    @property
    def shape(self) -> str:
        """A key shared by all cells that differ only in values and seeds."""
        return replace(self, values=(), seeds=()).key

    def __str__(self) -> str:
        seeds = ", ".join(map(str, self.seeds))
        return f"{self.measurement} {self.about}, {len(self.values)} values of {self.knob} x seeds {seeds}"


def of_a_user(model: Mapping[str, object], train: Mapping[str, object]) -> str:
    """A user's own model and its training in one line, from their plain values; empty for another model."""
    if "source" not in model:
        return ""
    return f"{model.get('name')}({model.get('axis')}={model.get('size')}),T={train.get('steps')}"


def content_key(content: Mapping[str, object]) -> str:
    """Hash of plain JSON values. The order of keys does not matter."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
