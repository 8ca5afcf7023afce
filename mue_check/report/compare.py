"""Rules side by side, from one study or several: one row per question, one column per rule."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mue_check.errors import StoreError
from mue_check.judge.verdict import Verdict
from mue_check.questions.comparison import Comparison
from mue_check.report.findings import DriftFinding, LawsFinding
from mue_check.report.format import in_words
from mue_check.report.summary import Summary, place, summarize

Key = tuple[str, str, str, str, str]
"""What one row asks: ladder, target, corpus, knob, router."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One row: the same question under every column, ``found`` by the column's name where it was asked."""

    asked: Comparison
    found: dict[str, DriftFinding]

    @property
    def target(self) -> str:
        """The target's label."""
        return self.asked.sides[-1].label


@dataclass(frozen=True, kw_only=True)
class LawsAsked:
    """The laws of one ladder under every column."""

    asked: Comparison
    found: dict[str, LawsFinding]


@dataclass(frozen=True, kw_only=True)
class Count:
    """What one column says in all. The means are over the ``shared`` rows that every column resolves."""

    column: str
    verdicts: dict[Verdict, int]
    mean_drift: float
    mean_regret: float
    shared: int


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The drifts of the studies but the controls. ``columns``: rules, or ``study/rule`` where two studies have it."""

    columns: tuple[str, ...]
    questions: tuple[Question, ...]
    laws: tuple[LawsAsked, ...]
    studies: dict[str, str]
    """By column, the study that it is from."""

    def counts(self) -> list[Count]:
        """One for each column."""
        shared = [q for q in self.questions if all(_resolved(q, column) for column in self.columns)]
        return [
            Count(
                column=column,
                verdicts=dict(Counter(q.found[column].drift.verdict for q in self.questions if column in q.found)),
                mean_drift=_mean([abs(q.found[column].drift.interval.mean) for q in shared]),
                mean_regret=_mean([q.found[column].drift.regret for q in shared]),
                shared=len(shared),
            )
            for column in self.columns
        ]

    def numbers(self) -> pd.DataFrame:
        """Raw numbers, one line for each question and column."""
        return pd.DataFrame([_numbers(q, column, self.studies[column]) for q in self.questions for column in q.found])


def compare_studies(roots: Sequence[Path]) -> Sides:
    """Judge the studies and set their drifts side by side. StoreError, one line, for a folder that holds none."""
    summaries = [summarize(root) for root in {root.resolve(): root for root in roots}.values()]
    names = [summary.name for summary in summaries]
    if len(set(names)) < len(names):
        names = [str(root) for root in {root.resolve(): root for root in roots}.values()]
    for name, summary in zip(names, summaries, strict=True):
        if not summary.targets:
            raise StoreError(f"study {name!r} holds no drift to compare")
    return side_by_side(names, summaries)


def side_by_side(names: Sequence[str], summaries: Sequence[Summary]) -> Sides:
    """The drifts of studies that were judged already, under these names."""
    rules = Counter(rule for summary in summaries for rule in _rules(summary))
    studies: dict[str, str] = {}
    questions: dict[Key, Question] = {}
    laws: dict[tuple[str, str, str], LawsAsked] = {}
    for name, summary in zip(names, summaries, strict=True):
        for d in summary.targets:
            rule = d.comparison.rule
            column = rule if rules[rule] == 1 else f"{name}/{rule}"
            studies.setdefault(column, name)
            questions.setdefault(_key(d.comparison), Question(asked=d.comparison, found={})).found[column] = d
        for found in summary.laws:
            c = found.comparison
            column = c.rule if rules[c.rule] == 1 else f"{name}/{c.rule}"
            if column in studies and not c.is_control:
                laws.setdefault((c.ladder, c.corpus, c.router), LawsAsked(asked=c, found={})).found[column] = found
    return Sides(
        columns=tuple(studies),
        questions=tuple(sorted(questions.values(), key=lambda q: place(q.asked)[:-2])),
        laws=tuple(sorted(laws.values(), key=lambda asked: place(asked.asked)[:-2])),
        studies=studies,
    )


def _rules(summary: Summary) -> set[str]:
    return {d.comparison.rule for d in summary.targets}


def _key(c: Comparison) -> Key:
    return c.ladder, c.sides[-1].label, c.corpus, c.knob, c.router


def _resolved(question: Question, column: str) -> bool:
    return column in question.found and question.found[column].drift.reason is None


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _numbers(question: Question, column: str, study: str) -> dict[str, str | float | int]:
    d = question.found[column]
    c, drift = d.comparison, d.drift
    return {
        "column": column,
        "study": study,
        "axis": c.axis,
        "ladder": c.ladder,
        "target": question.target,
        "size": d.side.size,
        "corpus": c.corpus,
        "rule": c.rule,
        "router": c.router,
        "knob": c.knob,
        "tier": c.tier,
        "seeds": drift.interval.n,
        "drift": drift.interval.mean,
        "low": drift.interval.low,
        "high": drift.interval.high,
        "regret": drift.regret,
        "gain": drift.gain,
        "detectable": drift.detectable,
        "tolerance": c.tolerance,
        "residual": c.residual,
        "verdict": drift.verdict.value,
        "expected": c.expected,
        "core_seconds": d.core_seconds,
    }


def row_name(question: Question) -> str:
    """The ladder and its target in words."""
    return f"{in_words(question.asked.ladder)}: {question.target}"
