"""Laws of scale: an exponent against a size, or equality with a reference, judged over seeds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, cast

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

    With ``form`` "exponent", the log-log slope against the rung's size should be ``expected``, and no rung may lie
    farther from the fitted line than a slope that is off by ``tolerance`` would put the largest. With "ratio", log2 of
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

    @cached_property
    def rows_of(self) -> Mapping[tuple[int, str], NDArray[np.intp]]:
        """The positions of the rows of each step and coordinate, where a name without its block counts as one."""
        # the whole name must match: "block0.router_logits" is not "logits"
        without = {name: re.sub(_BLOCK, "", name) for name in self.table["coordinate"].unique()}
        groups = self.table.groupby(["step", self.table["coordinate"].map(without)]).indices
        return cast(Mapping[tuple[int, str], NDArray[np.intp]], groups)


@dataclass(frozen=True, kw_only=True)
class LawResult:
    """A law's measured interval and verdict. ``worst`` names the rung, or pair of rungs, farthest from the law.

    ``misfit`` of an exponent: how many octaves the rung that is farthest from the fitted line lies above it. None where
    no line is fitted: for a ratio, and for a rung that is zero or not finite.
    """

    law: Law
    interval: Interval
    misfit: Interval | None
    worst: str
    verdict: Verdict

    def __str__(self) -> str:
        return f"{self.verdict}: {self.law.statement}; measured {self.interval}, worst {self.worst}"


def judge_law(law: Law, rungs: Sequence[Rung], looks: Looks = ()) -> LawResult:
    """Judge ``law`` on rungs of ascending size. FAIL if an activation of any block is zero or not finite.

    An exponent needs the slope of the fitted line, and every rung near that line: a slope alone does not see a bump in
    the middle. The law is judged on all blocks combined, which is known best. It also fails if one block surely breaks
    it, since errors in opposite directions cancel. Where rungs differ in depth, the first and the last are looked at.
    ``looks`` are the numbers of seeds at which it is judged.
    """
    level = look_level(looks)
    blocks = [_by_block(law, rung) for rung in rungs]
    for rung, values in zip(rungs, blocks, strict=True):
        if not (np.isfinite(values) & (values > 0)).all():
            worst = f"{rung.label}, zero or not finite"
            return LawResult(law=law, interval=t_interval([]), misfit=None, worst=worst, verdict=Verdict.FAIL)
    result = _judge_levels(law, rungs, level, [_combined(law, values) for values in blocks])
    counts = {values.shape[1] for values in blocks}
    if result.verdict is Verdict.FAIL or counts == {1}:
        return result
    for at in range(counts.pop()) if len(counts) == 1 else (0, -1):
        # where blocks are summed, each contributes its share
        shares = [values[:, at] * (values.shape[1] if law.over_blocks == "sum" else 1) for values in blocks]
        single = _judge_levels(law, rungs, level, [np.log2(share) for share in shares])
        if single.verdict is Verdict.FAIL:
            return replace(single, worst=f"{single.worst} in {'the last block' if at < 0 else f'block {at}'}")
    return result


def _judge_levels(law: Law, rungs: Sequence[Rung], level: float, by_rung: Sequence[NDArray[np.float64]]) -> LawResult:
    """Judge the log2 levels [S] of each rung by intervals of the two-sided ``level``."""
    levels = np.stack(by_rung, axis=1)  # [seeds, rungs]
    if law.form == "ratio":
        off = [t_interval(list(column), level) for column in (levels[:, 1:] - levels[:, :1]).T]
        verdict, at = _farthest(off, law.tolerance, law.expected)
        return LawResult(law=law, interval=off[at], misfit=None, worst=rungs[at + 1].label, verdict=verdict)
    x = np.log2([rung.size for rung in rungs])
    slopes, heights = np.polyfit(x - x.mean(), levels.T, 1)
    interval = t_interval(list(slopes), level)
    slope = judge_interval(interval, law.tolerance, center=law.expected)
    above = levels - heights[:, None] - slopes[:, None] * (x - x.mean())
    misfits = [t_interval(list(column), level) for column in above.T]
    # as far as a slope that is off by the tolerance puts a rung at either end
    misfit, off_line = _farthest(misfits, law.tolerance * (x.max() - x.min()) / 2)
    if misfit is not Verdict.PASS and slope is not Verdict.FAIL:
        worst = f"{rungs[off_line].label}, {misfits[off_line].mean:+.2f} octaves off the line"
    else:
        local = np.diff(levels.mean(axis=0)) / np.diff(x)
        at = int(np.argmax(np.abs(local - law.expected)))
        worst = f"{rungs[at].label} -> {rungs[at + 1].label}"
    return LawResult(law=law, interval=interval, misfit=misfits[off_line], worst=worst, verdict=join((slope, misfit)))


def _farthest(intervals: Sequence[Interval], tolerance: float, center: float = 0.0) -> tuple[Verdict, int]:
    """The joint verdict, and which of those that have it is farthest from ``center``."""
    verdicts = [judge_interval(interval, tolerance, center=center) for interval in intervals]
    verdict = join(verdicts)
    having = [at for at, each in enumerate(verdicts) if each is verdict]
    return verdict, max(having, key=lambda at: abs(intervals[at].mean - center))


def log2_levels(law: Law, rung: Rung) -> NDArray[np.float64]:
    """[S] log2 of the law's quantity by ascending seed, with the blocks combined as the law says."""
    return _combined(law, _by_block(law, rung))


def _combined(law: Law, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[S] log2 of the sum or of the RMS over blocks [S, B]."""
    levels = values.sum(axis=1) if law.over_blocks == "sum" else np.sqrt(np.square(values).mean(axis=1))
    with np.errstate(divide="ignore"):
        return np.asarray(np.log2(levels), dtype=np.float64)


def _by_block(law: Law, rung: Rung) -> NDArray[np.float64]:
    """[S, B] the law's quantity by ascending seed and block; NaN where a seed lacks a block."""
    at = rung.rows_of.get((law.step, law.coordinate))
    if at is None:
        raise ValueError(f"no coordinate {law.coordinate!r} at step {law.step} in the table")
    rows = rung.table.take(at)
    names = sorted(rows["coordinate"].unique(), key=lambda name: (len(name), name))  # block10 after block9
    column = rows["coordinate"].map({name: number for number, name in enumerate(names)})
    seeds, row = np.unique(rows["seed"], return_inverse=True)
    values = np.full((len(seeds), len(names)), np.nan)
    values[row, column] = rows[law.quantity]
    return values
