"""The list of questions: one file for each, written before it is measured, so that a report sees what has no answer.

``asked/<name>.json`` holds the question and the run that asked it last, ``comparisons/<name>.json`` the answer, and
``runs/<run>.json`` marks a run that did not finish, so that it may not have asked everything. Several processes may
write into one study: each file is replaced as a whole, and asking the same question again overwrites it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from mue_check.errors import StoreError
from mue_check.records.files import remove_file, write_record
from mue_check.records.typed import from_json
from mue_check.study.comparison import Comparison, files_of, path_of, question_problem, read_versioned

SCHEMA = 1
FOLDER, RUNS = "asked", "runs"
_ASKED = tuple(f.name for f in fields(Comparison) if f.name != "sides")
"""What a question and its answer have in common."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question, which is a comparison without sides, and the ``run`` that asked it last (``new_run``)."""

    question: Comparison
    run: str


@dataclass(frozen=True, kw_only=True)
class Unanswered:
    """A question without an answer, and why."""

    asked: Asked
    reason: str

    @property
    def comparison(self) -> Comparison:
        """The question."""
        return self.asked.question


def new_run(*selection: str) -> str:
    """A name for a run that begins now: the time (UTC), then a hash of its ``selection``.

    Later runs sort behind earlier ones.
    """
    digest = hashlib.sha256("\n".join(selection).encode(errors="replace")).hexdigest()[:8]
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}-{digest}"


def begin_run(root: Path, run: str) -> None:
    """Mark a run as unfinished."""
    write_record(path_of(root, run, RUNS), {"schema": SCHEMA, "run": run}, root=root)


def finish_run(root: Path, run: str) -> None:
    """Remove the mark of a run, and those of earlier runs with the same selection."""
    for earlier in unfinished_runs(root):
        if earlier <= run and earlier.rpartition("-")[2] == run.rpartition("-")[2]:
            remove_file(path_of(root, earlier, RUNS), root=root)


def unfinished_runs(root: Path) -> tuple[str, ...]:
    """The runs that did not finish, or are not finished yet, by the time at which they began."""
    return tuple(path.stem for path in files_of(root, RUNS))


def record_question(root: Path, question: Comparison, run: str) -> None:
    """List the question, and withdraw the answer of an earlier run: from now on it has none until one is stored."""
    remove_file(path_of(root, question.name), root=root)
    asked = Asked(question=question, run=run)
    write_record(path_of(root, question.name, FOLDER), {"schema": SCHEMA, **asdict(asked)}, root=root)


def last_asked(root: Path, name: str) -> Comparison | None:
    """The question of that name as it was asked last, answered or not; None if it never was."""
    path = path_of(root, name, FOLDER)
    return _read(path).question if path.exists() else None


def load_asked(root: Path) -> tuple[Asked, ...]:
    """Every question of a study, by name. StoreError names a file that is none."""
    return tuple(_read(path) for path in files_of(root, FOLDER))


def unanswered(asked: Sequence[Asked], answers: Iterable[Comparison]) -> Iterator[Unanswered]:
    """The questions whose answer is missing, or is an answer to another question."""
    by_name = {answer.name: answer for answer in answers}
    for each in asked:
        answer = by_name.get(each.question.name)
        if answer is None:
            yield Unanswered(asked=each, reason="it was asked, and no answer was stored")
        elif differing := next((name for name in _ASKED if getattr(each.question, name) != getattr(answer, name)), ""):
            wanted, stored = (getattr(c, differing) for c in (each.question, answer))
            reason = f"asked with {differing} {_short(wanted)}, but the stored answer has {_short(stored)}"
            yield Unanswered(asked=each, reason=reason)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _read(path: Path) -> Asked:
    where = f"question {str(path)!r}"
    asked = from_json(Asked, read_versioned(path, SCHEMA), where)
    if problem := question_problem(asked.question, path.stem):
        raise StoreError(f"{where} {problem}")
    return asked
