"""The composition root: every axis and every kind of question, and what is made of all of them.

Nothing below imports this module. To add a kind of question, write its file and list it here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from mue_check.axes import AXES, Ladder, Sizes
from mue_check.questions.question import QuestionKind

QUESTIONS: tuple[QuestionKind, ...] = ()
"""Judged in this order: a kind may use the findings of those before it. Reports count and print them in this order."""
