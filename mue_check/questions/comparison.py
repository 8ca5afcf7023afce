"""What was asked of the records: kept beside them, so that a report can judge again without training."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mue_check.errors import StoreError
from mue_check.records.files import read_json, write_json
from mue_check.records.typed import from_json

SCHEMA = 2
Kind = Literal["drift", "coordinates", "early_curve", "speedup", "routing", "gamma", "sigma0", "forecast"]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One arm as the report needs it: what it is, and which cells its numbers are in."""

    label: str
    size: int
    model: str
    cells: tuple[str, ...]
    first_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One question put to the records. ``expected`` is the verdict of a right implementation.

    The first side is the reference. A drift, an early curve and a speed-up have two sides, coordinates one per
    rung, routing one in all, with the ``weight_sum`` that its router claims; gamma one per load, and a shift of
    sigma_0 two; a forecast those of its drift. Nothing is expected of a finding (empty
    text): a speed-up, a router without a claim, another rule beside the one under test.
    ``axis`` is "control" for a control. ``residual`` is what an approximate law leaves, in octaves.
    """

    kind: Kind
    name: str
    axis: str
    ladder: str
    corpus: str
    rule: str
    router: str
    tier: str
    tolerance: float
    expected: str
    knob: str = "lr"
    residual: float = 0.0
    weight_sum: float | None = None
    sides: tuple[Side, ...]
    command: str

    @property
    def residual_edge(self) -> float:
        """Where the stretch that an approximate law leaves begins, beyond the tolerance on its side."""
        return self.tolerance if self.residual > 0 else -self.tolerance

    @property
    def is_control(self) -> bool:
        """A control asks whether the suite itself can tell right from wrong."""
        return self.axis == "control"


def save_comparison(root: Path, comparison: Comparison) -> None:
    """Write it into the study; the same question overwrites itself."""
    write_json(root / "comparisons" / f"{comparison.name}.json", {"schema": SCHEMA, **asdict(comparison)})


def load_comparisons(root: Path) -> list[Comparison]:
    """Every comparison of a study, by name. StoreError when there is none or one is of another schema."""
    folder = root / "comparisons"
    found = [_read(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise StoreError(f"{str(root)!r} holds no study: run `pytest suites/ --study {root}` first")
    return found


def _read(path: Path) -> Comparison:
    raw: Mapping[str, object] = read_json(path)
    if raw.get("schema") != SCHEMA:
        raise StoreError(
            f"{str(path)!r} has schema {raw.get('schema')!r}, this version reads {SCHEMA}: use a new study"
        )
    return from_json(Comparison, {key: value for key, value in raw.items() if key != "schema"}, f"comparison {path}")
