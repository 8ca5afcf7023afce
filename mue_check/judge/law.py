"""Laws of activation scales: an exponent against a size, or equality with a reference, judged over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from mue_check.judge.interval import Interval, t_interval
from mue_check.judge.verdict import Verdict, judge_interval

Quantity = Literal["rms", "change"]
Form = Literal["exponent", "ratio"]


@dataclass(frozen=True, kw_only=True)
class Law:
    """What should hold of ``quantity`` of every coordinate whose name ends in ``coordinate``, at ``step``.

    "exponent": the log-log slope against the rung's size is ``expected``. "ratio": log2 of each rung over
    the first rung is ``expected`` (0: equal). ``tolerance`` is in the same unit.
    """

    name: str
    coordinate: str
    quantity: Quantity
    step: int
    form: Form
    tolerance: float
    expected: float = 0.0
    source: str

    @property
    def statement(self) -> str:
        """The law in words."""
        what = "activation RMS" if self.quantity == "rms" else "change of the activation"
        when = "at initialization" if self.step == 0 else f"after {self.step} steps"
        if self.form == "ratio":
            return f"{self.coordinate} {what} {when} equals the reference's within {2**self.tolerance - 1:.0%}"
        return f"{self.coordinate} {what} {when} has slope {self.expected:g} +- {self.tolerance:g}"


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One size on an axis with its coordinates table (columns seed, step, coordinate, rms, change)."""

    label: str
    size: float
    table: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class LawResult:
    """A law's measured interval and verdict; ``worst`` names the rung or pair that is farthest off."""

    law: Law
    interval: Interval
    worst: str
    verdict: Verdict

    def __str__(self) -> str:
        return f"{self.law.statement}: {self.interval}, worst {self.worst}: {self.verdict}"


def judge_law(law: Law, rungs: Sequence[Rung]) -> LawResult:
    """Judge ``law`` on rungs in ascending size; coordinates of several layers are averaged (RMS over layers)."""
    levels = pd.DataFrame({rung.label: _levels(law, rung.table) for rung in rungs})  # seed x rung, log2
    if law.form == "ratio":
        off = levels.iloc[:, 1:].sub(levels.iloc[:, 0], axis=0)
        worst = str(off.columns[int(np.argmax(np.abs(off.to_numpy().mean(0) - law.expected)))])
        interval = t_interval(list(off[worst]))
    else:
        x = np.log2([rung.size for rung in rungs])
        slopes = [float(np.polyfit(x, row, 1)[0]) for row in levels.to_numpy()]
        interval = t_interval(slopes)
        mean = levels.mean()
        steps = (mean.diff().iloc[1:] / np.diff(x) - law.expected).abs()
        at = int(np.argmax(steps.to_numpy()))
        worst = f"{rungs[at].label} -> {rungs[at + 1].label}"
    verdict = judge_interval(interval, law.tolerance, center=law.expected)
    return LawResult(law=law, interval=interval, worst=worst, verdict=verdict)


def _levels(law: Law, table: pd.DataFrame) -> "pd.Series[float]":
    """log2 of the quantity per seed, layers joined by their RMS; replicates are numbered from 0."""
    rows = table[(table["step"] == law.step) & table["coordinate"].str.endswith(law.coordinate)]
    if rows.empty:
        raise ValueError(f"no coordinate {law.coordinate!r} at step {law.step} in the table")
    square = rows.assign(square=rows[law.quantity] ** 2).groupby("seed")["square"].mean()
    return pd.Series(np.log2(square.to_numpy()) / 2)


_RULES = "arXiv 2203.03466 appendix J; arXiv 2605.23893"
COORDINATE_STEPS = (0, 1, 5)

WIDTH_LAWS = tuple(
    Law(
        name=f"{coordinate} change",
        coordinate=coordinate,
        quantity="change",
        step=5,
        form="exponent",
        tolerance=0.25,
        source=_RULES,
    )
    for coordinate in ("logits", "residual", "attention_branch", "ffn_branch")
)
"""Against width every change of an activation has slope 0."""

ACTIVATED_LAWS = (
    Law(
        name="branch scale at init",
        coordinate="ffn_branch",
        quantity="rms",
        step=0,
        form="ratio",
        tolerance=0.0704,  # log2(1.05)
        source="arXiv 2605.23893, Bridges I and II: A, R and the down-projection's init keep the branch",
    ),
    Law(
        name="logits change",
        coordinate="logits",
        quantity="change",
        step=5,
        form="exponent",
        tolerance=0.25,
        source=_RULES,
    ),
)
"""Against activated experts the branch starts as the dense one does, and the function moves alike."""
