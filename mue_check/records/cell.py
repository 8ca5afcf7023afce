"""A cell: one measurement of one model under one prescription, and the hash of all that decides its result."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from mue_check.precision import Precision
from mue_check.rules import HyperParameters, Knob, Prescription
from mue_check.spec import ModelSpec, TrainSpec

SCHEMA = 2
"""Version of the file format."""
MEASURING = 3
"""Version of the measuring code: raise it when the same cell would give other numbers."""

Content = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What to measure. ``values`` and ``seeds`` are crossed: one run for each pair, all in one stack.

    ``values`` are base values of the swept ``knob``, which replace the one in ``base``. ``measurement`` is a
    name in ``mue_check.measure``; ``steps`` the steps at which it looks (empty: at the end alone). ``flaw``
    names a mistake that is made on purpose (``training.flaws``). ``loads`` are target loads under which the frozen
    weights are looked at (empty: the one that they train under). ``load_scaling`` is the strength, 0 to 1, at which
    each expert's update is scaled with its load (``training.load_scaling``). The rule's name is not part of the
    content, its factors are: a rule that is mended asks for other cells.
    """

    measurement: str
    model: ModelSpec
    prescription: Prescription
    base: HyperParameters
    train: TrainSpec
    corpus: str
    corpus_fingerprint: str
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    steps: tuple[int, ...] = ()
    knob: Knob = "lr"
    flaw: str = ""
    loads: tuple[str, ...] = ()
    load_scaling: float = 0.0
    device: str = "cpu"
    precision: Precision = "fp32"

    @property
    def content(self) -> Content:
        """Everything that decides the numbers, as plain JSON values."""
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
    def key(self) -> str:
        """20 hexadecimal digits: equal for equal content, on every machine."""
        return content_key(self.content)

    @property
    def shape(self) -> str:
        """The key of what cells share that differ in their runs alone: their values and seeds."""
        return replace(self, values=(), seeds=()).key

    @property
    def runs(self) -> int:
        """How many runs it takes."""
        return len(self.values) * len(self.seeds)

    def __str__(self) -> str:
        return (
            f"{self.measurement} {self.model} {self.train} on {self.corpus}, rule {self.prescription.rule}, "
            f"{len(self.values)} values of {self.knob} x seeds {', '.join(map(str, self.seeds))}"
        )


def content_key(content: Mapping[str, object]) -> str:
    """Hash of plain JSON values, independent of the order of keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
