"""A comparison: one question put to the records, stored with them so that a report judges it without training."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from mue_check.errors import StoreError
from mue_check.judge.interval import Looks, looks_text
from mue_check.records import Store
from mue_check.records.files import read_json, write_json
from mue_check.records.typed import from_json
from mue_check.rules import Row

SCHEMA = 2
DEFAULT_ROUTER = "sigmoid_norm"
"""The rule's own router, which the names of questions and the headings of reports leave out."""
_KNOBS = ("lr", "weight_decay", "init_std")


@dataclass(frozen=True, kw_only=True)
class Side:
    """One arm as the report needs it: its model, and the cells that hold its numbers."""

    label: str
    size: int
    model: str
    cells: tuple[str, ...]
    first_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One question. ``kind`` is the kind of question that judges it, and how many sides it has; the first is the
    reference. A question that is only asked has no sides yet (``questions.asked``).

    ``expected`` is the verdict of a correct implementation, or empty where nothing is expected: a speed-up, a router
    without a claim, a rule other than the one under test. ``axis`` is "control" for a control. ``residual`` is the
    drift that an approximate law leaves, in octaves. ``weight_sum`` is what a router claims its weights sum to,
    ``prescribed`` what the optimizer must apply, one row per role. ``looks`` are the numbers of seeds at which it is
    judged, fixed before the first; empty if the number of seeds was fixed, and in comparisons of version 0.3 and
    before. ``earlier_looks`` are those of earlier runs of the same question with other numbers of seeds.
    """

    kind: str
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
    prescribed: tuple[Row, ...] = ()
    looks: Looks = ()
    earlier_looks: tuple[Looks, ...] = ()
    sides: tuple[Side, ...]
    command: str

    @property
    def residual_edge(self) -> float:
        """The edge of the tolerance from which the residual of an approximate law extends."""
        return self.tolerance if self.residual > 0 else -self.tolerance

    @property
    def is_control(self) -> bool:
        """Whether the right answer is known, so that the question tests the suite itself."""
        return self.axis == "control"


def looks_note(comparison: Comparison) -> str:
    """What is wrong with its 95 %: it was asked before with looks at other numbers of seeds."""
    if not comparison.earlier_looks:
        return ""
    before = " and ".join(map(looks_text, comparison.earlier_looks))
    now = looks_text(comparison.looks)
    return f"asked before with looks at {before} seeds, now at {now}: the interval covers less than 95 %"


def path_of(root: Path, name: str, folder: str = "comparisons") -> Path:
    """The file of the answer to the question of that name; in another folder, of the question."""
    return root / folder / f"{name}.json"


def save_comparison(root: Path, comparison: Comparison) -> None:
    """Write it into the study; the same question overwrites its earlier file."""
    write_json(path_of(root, comparison.name), {"schema": SCHEMA, **asdict(comparison)})


def load_comparisons(root: Path) -> list[Comparison]:
    """Every comparison of a study, by name. StoreError if one is of another schema."""
    return [_read(path) for path in sorted((root / "comparisons").glob("*.json"))]


def side_table(store: Store, side: Side) -> pd.DataFrame:
    """All rows of a side's cells, in one table."""
    return pd.concat([store.rows(key) for key in side.cells], ignore_index=True)


def place(
    comparison: Comparison, axes: Sequence[str]
) -> tuple[bool, int, str, int, bool, str, str, int, str, str, str]:
    """Sort key of a report: controls last, axes in their own order, sizes ascending, then rule by rule.

    Sorting by file name would put d128 before d64.
    """
    c = comparison
    axis = axes.index(c.axis) if c.axis in axes else len(axes)
    knob = _KNOBS.index(c.knob) if c.knob in _KNOBS else len(_KNOBS)
    size, label = (c.sides[-1].size, c.sides[-1].label) if c.sides else (0, "")
    where = (c.is_control, axis, c.ladder, knob, c.router != DEFAULT_ROUTER, c.router, c.corpus)
    return *where, size, label, c.rule, c.name


def read_versioned(path: Path, schema: int) -> Mapping[str, object]:
    """The fields of a JSON file of that schema, without the schema. StoreError if it has another one."""
    raw = read_json(path)
    if raw.get("schema") != schema:
        raise StoreError(
            f"{str(path)!r} has schema {raw.get('schema')!r}, this version reads {schema}: use a new study"
        )
    return {key: value for key, value in raw.items() if key != "schema"}


def require_name(path: Path, comparison: Comparison) -> None:
    """StoreError if a question is not in the file that has its name."""
    if comparison.name != path.stem:
        raise StoreError(f"{str(path)!r} holds the question {comparison.name!r}: remove it and run again")


def _read(path: Path) -> Comparison:
    comparison = from_json(Comparison, read_versioned(path, SCHEMA), f"comparison {path}")
    require_name(path, comparison)
    return comparison
