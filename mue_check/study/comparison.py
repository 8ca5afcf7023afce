"""A comparison: one question put to the records, stored with them so that a report judges it without training."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from mue_check.errors import StoreError
from mue_check.judge.interval import Looks, looks_text
from mue_check.judge.verdict import Verdict
from mue_check.records import Store
from mue_check.records.files import UNUSABLE, read_record, reason_of, write_record
from mue_check.records.record import require_key
from mue_check.records.typed import from_json
from mue_check.rules import Knob, Row
from mue_check.rules.knob import KNOBS

SCHEMA = 2
DEFAULT_ROUTER = "sigmoid_norm"
"""The rule's own router, which the names of questions and the headings of reports leave out."""

NO_UNIT = "loss"
"""Stands for the unit of losses when the user has not named it."""


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
    reference. A question that is only asked has no sides yet (``study.asked``).

    ``expected`` is the verdict of a correct implementation, or empty where nothing is expected: a speed-up, a router
    without a claim, a rule other than the one under test. ``axis`` is "control" for a control. ``residual`` is the
    drift that an approximate law leaves, in octaves. ``predicted`` is the drift that theory predicts for this rule or
    mutant, in octaves, where the right rule has none; None where theory predicts nothing. ``weight_sum`` is what a
    router claims its weights sum to, ``prescribed`` what the optimizer must apply, one row per role. ``looks`` are the
    numbers of seeds at which it is judged, fixed before the first; empty if the number of seeds was fixed, and in
    comparisons of version 0.3 and before. ``earlier_looks`` are those of earlier runs of the same question with other
    numbers of seeds. ``loss_unit`` is what the losses are in; empty: what the kind of model tells.
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
    knob: Knob = "lr"
    residual: float = 0.0
    weight_sum: float | None = None
    prescribed: tuple[Row, ...] = ()
    looks: Looks = ()
    earlier_looks: tuple[Looks, ...] = ()
    predicted: float | None = None
    loss_unit: str = ""
    sides: tuple[Side, ...]
    command: str

    @property
    def is_right(self) -> bool:
        """Whether it is about a rule that is taken to be right."""
        return self.expected in (Verdict.PASS, Verdict.RESIDUAL)

    @property
    def is_control(self) -> bool:
        """Whether the right answer is known, so that the question tests the suite itself."""
        return self.axis == "control"


def path_of(root: Path, name: str, folder: str = "comparisons") -> Path:
    """The file of the answer to the question of that name; in another folder, of the question."""
    return root / folder / f"{name}.json"


def looks_note(comparison: Comparison) -> str:
    """A note that its interval covers less than 95 %, if it was asked before with looks at other numbers of seeds."""
    if not comparison.earlier_looks:
        return ""
    before = " and ".join(map(looks_text, comparison.earlier_looks))
    now = looks_text(comparison.looks)
    return f"asked before with looks at {before} seeds, now at {now}: the interval covers less than 95 %"


def with_looks_note(text: str, comparison: Comparison) -> str:
    """The text, followed by the note on looks if there is one."""
    return "; ".join(filter(None, (text, looks_note(comparison))))


def save_comparison(root: Path, comparison: Comparison) -> None:
    """Write it into the study; the same question overwrites its earlier file."""
    path = path_of(root, comparison.name)
    write_record(path, {"schema": SCHEMA, **asdict(comparison)}, root=root)


def load_comparisons(root: Path) -> list[Comparison]:
    """Every comparison of a study, by name. StoreError if one is of another schema."""
    return [_read(path) for path in files_of(root, "comparisons")]


def files_of(root: Path, folder: str) -> list[Path]:
    """The JSON files of a folder of a study, by name. StoreError if it cannot be read."""
    try:
        return sorted((root / folder).glob("*.json"))
    except UNUSABLE as error:
        raise StoreError(f"cannot read {str(root)!r}: {reason_of(error)}") from None


def side_table(store: Store, side: Side) -> pd.DataFrame:
    """All rows of a side's cells, in one table."""
    return pd.concat([store.rows(key) for key in side.cells], ignore_index=True)


def report_order(
    comparison: Comparison, axes: Sequence[str]
) -> tuple[bool, int, str, int, bool, str, str, int, str, str, str]:
    """Sort key of a report: controls last, axes in their own order, sizes ascending, then rule by rule.

    Sorting by file name would put d128 before d64.
    """
    c = comparison
    axis = axes.index(c.axis) if c.axis in axes else len(axes)
    knob = KNOBS.index(c.knob)
    size, label = (c.sides[-1].size, c.sides[-1].label) if c.sides else (0, "")
    where = (c.is_control, axis, c.ladder, knob, c.router != DEFAULT_ROUTER, c.router, c.corpus)
    return *where, size, label, c.rule, c.name


def read_versioned(path: Path, schema: int) -> dict[str, object]:
    """The fields of a record of that schema, without the schema. StoreError if it has another one."""
    raw = read_record(path)
    if raw.get("schema") != schema:
        raise StoreError(
            f"{str(path)!r} has schema {raw.get('schema')!r}, this version reads {schema}: use a new study"
        )
    return {key: value for key, value in raw.items() if key != "schema"}


def _read(path: Path) -> Comparison:
    where = f"comparison {str(path)!r}"
    found = from_json(Comparison, read_versioned(path, SCHEMA), where)
    if problem := question_problem(found, path.stem) or _sides_problem(found):
        raise StoreError(f"{where} {problem}")
    return found


def question_problem(question: Comparison, name: str) -> str:
    """Why a stored question is invalid; "" if it is valid."""
    if question.name != name:
        return f"has the name {question.name!r}: a copy of another one"
    if question.tolerance < 0:
        return f"has the tolerance {question.tolerance:g}: at least 0 is needed"
    if question.expected not in ("", *Verdict):
        return f"expects {question.expected!r}, which is no verdict"
    return ""


def _sides_problem(comparison: Comparison) -> str:
    if not comparison.sides or not all(side.cells for side in comparison.sides):
        return "has no sides, or a side without cells"
    try:
        for key in (key for side in comparison.sides for key in side.cells):
            require_key(key)
    except StoreError as error:
        return f"has a wrong cell: {error}"
    return ""
