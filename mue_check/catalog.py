"""The composition root: every axis and every kind of question, and what is made of all of them.

Rooms below do not import this module. To add a kind of question, write its file and list it here.
"""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from mue_check.axes import AXES
from mue_check.questions import summary as studies
from mue_check.questions.controls import ControlKind
from mue_check.questions.drift_report import DriftKind
from mue_check.questions.early import EARLY
from mue_check.questions.question import CaseMaker, QuestionKind, Summary
from mue_check.questions.routing import ROUTING
from mue_check.questions.scales import SCALES
from mue_check.questions.speed import SPEED
from mue_check.questions.trend import TrendKind
from mue_check.questions.values import ValuesKind

QUESTIONS: tuple[QuestionKind, ...] = (
    DriftKind(),
    TrendKind(),
    SCALES,
    EARLY,
    SPEED,
    ROUTING,
    ValuesKind(),
    ControlKind(),
)
"""Judged in this order: a kind may use the findings of those before it. Reports count and print them in this order."""

CASES: Mapping[str, CaseMaker] = dict(chain.from_iterable(kind.cases.items() for kind in QUESTIONS))
"""Of all kinds, the cases of the suites' tests by the name of their fixture."""


def summarize(root: Path) -> Summary:
    """Judge a study from its records. StoreError, one line, when it holds none or a cell is missing."""
    return studies.summarize(root, QUESTIONS, tuple(AXES))


def write_report(root: Path, summary: Summary | None = None) -> Path:
    """Write the report of a study, judged already as ``summary`` or now, and return the page's path."""
    return studies.write_report(root, summary or summarize(root))
