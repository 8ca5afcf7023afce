"""Laws of scale: an exponent against a size, or equality with a reference, judged over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mue_check.judge.interval import Interval, Looks, look_level, t_interval
from mue_check.judge.verdict import Verdict, join, judge_interval

Quantity = Literal["rms", "change"]
Form = Literal["exponent", "ratio"]
_BLOCK = r"^block\d+\."


@dataclass(frozen=True, kw_only=True)
class Law:
    """What should hold for ``quantity`` of ``coordinate`` at ``step``, over all layers that have it.

    ``coordinate`` is an activation's name without its block, or ``weight.<role>``. Blocks are combined by their RMS, or
    summed where rungs differ in depth and each block contributes its share.

    With ``form`` "exponent", the log-log slope against the rung's size should be ``expected``. With "ratio", log2 of
    each rung over the first rung should be ``expected`` (0: equal). ``tolerance`` is in the same unit.
    """

    name: str
    coordinate: str
    quantity: Quantity
    step: int
    form: Form
    tolerance: float
    expected: float = 0.0
    over_blocks: Literal["rms", "sum"] = "rms"
    source: str

    @property
    def statement(self) -> str:
        """The law in words."""
        what = "RMS" if self.quantity == "rms" else "change"
        what += ", summed over blocks," if self.over_blocks == "sum" else ""
        when = "at initialization" if self.step == 0 else f"after {self.step} step{'s' * (self.step > 1)}"
        if self.form == "ratio":
            return f"{what} of {self.coordinate} {when}: the reference's within {2**self.tolerance - 1:.0%}"
        return f"{what} of {self.coordinate} {when}: slope {self.expected:g} +- {self.tolerance:g}"


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One size on an axis with its coordinates table (columns seed, step, coordinate, rms, change)."""

    label: str
    size: float
    table: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class LawResult:
    """A law's measured interval and verdict. ``worst`` names the rung, or pair of rungs, farthest from the law."""

    law: Law
    interval: Interval
    worst: str
    verdict: Verdict

    def __str__(self) -> str:
        return f"{self.verdict}: {self.law.statement}; measured {self.interval}, worst {self.worst}"


def judge_law(law: Law, rungs: Sequence[Rung], looks: Looks = ()) -> LawResult:
    """Judge ``law`` on rungs of ascending size. FAIL if an activation is zero or not finite.

    ``looks`` are the numbers of seeds at which it is judged.
    """
    level = look_level(looks)
    levels = np.stack([log2_levels(law, rung.table) for rung in rungs], axis=1)  # [seeds, rungs]
    dead = ~np.isfinite(levels).all(axis=0)
    if dead.any():
        worst = f"{rungs[int(np.argmax(dead))].label}, zero or not finite"
        return LawResult(law=law, interval=t_interval([]), worst=worst, verdict=Verdict.FAIL)
    if law.form == "ratio":
        off = [t_interval(list(column), level) for column in (levels[:, 1:] - levels[:, :1]).T]
        verdicts = [judge_interval(interval, law.tolerance, center=law.expected) for interval in off]
        verdict = join(verdicts)
        # of the rungs with the joint verdict, the one farthest from the law
        at = max((i for i, v in enumerate(verdicts) if v is verdict), key=lambda i: abs(off[i].mean - law.expected))
        interval, worst = off[at], rungs[at + 1].label
    else:
        x = np.log2([rung.size for rung in rungs])
        interval = t_interval([float(np.polyfit(x, row, 1)[0]) for row in levels], level)
        local = np.diff(levels.mean(axis=0)) / np.diff(x)
        at = int(np.argmax(np.abs(local - law.expected)))
        worst = f"{rungs[at].label} -> {rungs[at + 1].label}"
        verdict = judge_interval(interval, law.tolerance, center=law.expected)
    return LawResult(law=law, interval=interval, worst=worst, verdict=verdict)


def log2_levels(law: Law, table: pd.DataFrame) -> NDArray[np.float64]:
    """[S] log2 of the law's quantity by ascending seed, with the blocks combined as the law says."""
    # the whole name must match: "block0.router_logits" is not "logits"
    names = table["coordinate"].str.replace(_BLOCK, "", regex=True)
    rows = table[(table["step"] == law.step) & (names == law.coordinate)]
    if rows.empty:
        raise ValueError(f"no coordinate {law.coordinate!r} at step {law.step} in the table")
    groups = [group.to_numpy(dtype=np.float64) for _, group in rows.groupby("seed")[law.quantity]]
    if law.over_blocks == "sum":
        levels = [float(values.sum()) for values in groups]
    else:
        levels = [float(np.sqrt(np.square(values).mean())) for values in groups]
    with np.errstate(divide="ignore"):
        return np.asarray(np.log2(levels), dtype=np.float64)
