"""Sweeps without seeds: matched cells are the replicates, and what the fit leaves open is part of the interval.

Each cell has one optimum in every arm, and a drift is a difference within the cell. Its interval has two parts, as in
registration: the spread over cells, and how far the answer moves with 5 or 7 points in the fit and with the other
smoothing of the loss, which more cells do not reduce. Where cubics give another drift, significantly over the cells,
the interval reaches to it: a wall that is steeper in one arm moves the vertices of its parabolas. With fewer than four
replicates, the scatter of the losses around their parabolas bounds the first part from below.

Two or three cells with several seeds each are clusters: seeds of one cell share what is special about the cell, and one
seed has the same data order in all cells. Then the first part is the widest of three: over cells, over seeds, over all.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mue_check.judge.drift import MIN_SEEDS
from mue_check.judge.interval import PLAIN, Interval, jackknife_interval, t_interval, two_part_interval
from mue_check.judge.optimum import SLOPE_LEVEL, WINDOW, Optimum, cubic_minimum, fit_optimum, parabola_loss, vertex_sd
from mue_check.sweeps.sweep import Arm, Sweep

WINDOWS = (WINDOW, WINDOW + 2)
"""Points in a fit. The first is the one to quote."""
SAME_SHAPE = 0.1
"""Octaves by which cubics move the drift of equal curves, depending on where their optima lie between the rates."""
NONE = t_interval([])


@dataclass(frozen=True, kw_only=True)
class Fits:
    """The optimum of every replicate of every arm, by the arm's label, from one window and one loss.

    A parabola of ``points`` has points - 3 degrees of freedom. ``parts`` are cell and seed of each replicate. ``lean``:
    how far the minimum of a cubic lies above that of the parabola, by arm and replicate.
    """

    points: int
    parts: Mapping[str, tuple[str, str]]
    by_arm: Mapping[str, Mapping[str, Optimum]]
    lean: Mapping[str, Mapping[str, float]]

    def resolved(self, arm: Arm) -> dict[str, Optimum]:
        """The replicates of an arm that have an optimum."""
        return {name: fit for name, fit in self.by_arm[arm.label].items() if fit.resolved}

    def shifts(self, base: Arm, arm: Arm) -> dict[str, float]:
        """Octaves from base to arm, in each replicate that both resolve."""
        ours, theirs = self.resolved(base), self.resolved(arm)
        return {name: at(theirs[name]) - at(ours[name]) for name in ours if name in theirs}

    def clusters(self, names: Iterable[str]) -> list[list[list[str]]]:
        """The replicates as they are independent: one by one, or of a few cells with seeds by cell and by seed.

        Cells are first, then seeds where every cell has them, then all of them one by one.
        """
        every = list(names)
        alone = [[name] for name in every]
        cells, seeds = (self._groups(every, part) for part in (0, 1))
        if not 1 < len(cells) < len(every):
            return [alone]
        crossed = len(seeds) > 1 and {len(own) for own in seeds} == {len(cells)}
        return [cells, *([seeds] if crossed else []), alone]

    def _groups(self, names: Sequence[str], part: int) -> list[list[str]]:
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(self.parts[name][part], []).append(name)
        return list(groups.values())

    def mean(self, values: Mapping[str, float]) -> Interval:
        """The mean over cells of values by replicate, with the widest interval of its clusters."""
        means = [[float(np.mean([values[name] for name in own])) for own in groups] for groups in self.clusters(values)]
        return _widest(float(np.mean(means[0])) if values else math.nan, [t_interval(each) for each in means])

    def repeats(self, names: Iterable[str]) -> int:
        """The number of cells, or of seeds in the scarcest of several cells if that is larger."""
        cells = self.clusters(names)[0]
        return max(len(cells), min(map(len, cells), default=0))


def at(fit: Optimum) -> float:
    """log2 of the optimum of a single curve."""
    return fit.interval.mean


def all_fits(sweep: Sweep) -> list[Fits]:
    """Fits with each loss and each window; the first are the ones to quote.

    Where replicates show how reliable a valley is, it need not be significant in each of them: to leave out flat ones
    would favor some.
    """
    fits = []
    for loss in sweep.columns.losses:
        curves = {arm.label: sweep.curves(arm, loss) for arm in sweep.arms}
        level = 1.0 if max(map(len, curves.values())) >= MIN_SEEDS else SLOPE_LEVEL
        for points in WINDOWS:
            by_arm = {
                label: {name: fit_optimum(curve, points, level) for name, curve in own.items()}
                for label, own in curves.items()
            }
            lean = {
                label: {
                    name: cubic_minimum(curves[label][name], fit) - at(fit) for name, fit in own.items() if fit.resolved
                }
                for label, own in by_arm.items()
            }
            fits.append(Fits(points=points, parts=sweep.replicates, by_arm=by_arm, lean=lean))
    return fits


def drift_of(fits: Sequence[Fits], base: Arm, arm: Arm, expected: float = 0.0) -> Interval:
    """The mean shift over replicates less the ``expected`` one, with both parts of its interval."""
    first = fits[0]
    shifts = first.shifts(base, arm)
    if not shifts:
        return NONE
    ours, theirs = first.resolved(base), first.resolved(arm)
    variance = sum(vertex_sd(ours[name]) ** 2 + vertex_sd(theirs[name]) ** 2 for name in shifts) / len(shifts) ** 2
    spread = first.mean(shifts)
    df = 2 * len(shifts) * (first.points - 3)
    variants = [list(each.shifts(base, arm).values()) for each in fits]
    moved = _sensitivity([(float(np.mean(each)), len(each)) for each in variants if each])
    moved = max(moved, abs(shift_of_shape(first, base, arm)))
    return _interval(spread.mean - expected, spread, math.sqrt(variance), df, moved)


def shift_of_shape(fits: Fits, base: Arm, arm: Arm) -> float:
    """Octaves by which cubics move the drift of parabolas; 0 if few or not significant over the replicates."""
    leans = {name: fits.lean[arm.label][name] - fits.lean[base.label][name] for name in fits.shifts(base, arm)}
    mean = fits.mean({name: lean for name, lean in leans.items() if math.isfinite(lean)})
    return mean.mean if abs(mean.mean) > max(mean.half_width, SAME_SHAPE) else 0.0


def exponent_of(fits: Sequence[Fits], arms: Sequence[Arm]) -> Interval:
    """Octaves of the optimal rate per doubling of the arm's size: the slope within replicates, pooled.

    Its interval is the jackknife over replicates.
    """
    sized = [arm for arm in arms if arm.size > 0]
    variants = [_rows(each, sized) for each in fits]
    rows, slope = variants[0], _slope(variants[0])
    if not math.isfinite(slope):
        return NONE
    spreads = [
        jackknife_interval(slope, [_slope([row for row in rows if row.replicate not in own]) for own in groups])
        for groups in fits[0].clusters(dict.fromkeys(row.replicate for row in rows))
    ]
    spread = _widest(slope, spreads)
    scatter, df = _slope_error(rows, slope, fits[0].points - 3)
    return _interval(slope, spread, scatter, df, _sensitivity([(_slope(each), len(each)) for each in variants]))


def left_out(fits: Fits, arm: Arm) -> str:
    """Why replicates of an arm have no optimum, with their number."""
    own = fits.by_arm[arm.label]
    reasons = Counter((fit.reason or "").partition(", log2")[0].partition(" between")[0] for fit in own.values())
    del reasons[""]
    if not reasons:
        return ""
    why = "; ".join(f"{reason} ({count})" if len(own) > 1 else reason for reason, count in reasons.most_common(3))
    return f"no optimum in {sum(reasons.values())} of {len(own)}: {why}" if len(own) > 1 else why


def regret_and_gain(fits: Fits, base: Arm, arm: Arm, expected: float = 0.0) -> tuple[float, float]:
    """Means over replicates of what an arm loses at the base's optimum, and of what it wins over the base."""
    ours, theirs = fits.resolved(base), fits.resolved(arm)
    names = [name for name in ours if name in theirs]
    if not names:
        return math.nan, math.nan
    best = {name: _loss(theirs[name]) for name in names}
    kept = [parabola_loss(theirs[name], 0, at(ours[name]) + expected) - best[name] for name in names]
    return float(np.mean(kept)), float(np.mean([_loss(ours[name]) - best[name] for name in names]))


def _loss(fit: Optimum) -> float:
    return next(iter(fit.loss_by_seed.values()))


def _widest(mean: float, intervals: Sequence[Interval]) -> Interval:
    """The widest of several intervals, around one mean."""
    widest = max(intervals, key=lambda interval: interval.half_width)
    return replace(widest, mean=mean, low=mean - widest.half_width, high=mean + widest.half_width)


def _interval(mean: float, spread: Interval, scatter: float, df: int, moved: float) -> Interval:
    """From the ``spread`` over replicates; with fewer than four, at least from the ``scatter`` of the losses."""
    parts = [(spread.own_error, spread.n - 1)] if spread.n > 1 else []
    parts += [(scatter, df)] if spread.n < MIN_SEEDS else []
    return _widest(mean, [two_part_interval(mean, error, own, spread.n, PLAIN, shared=moved) for error, own in parts])


def _sensitivity(estimates: Sequence[tuple[float, int]]) -> float:
    """Standard deviation of (estimate, optima behind it) over the variants of the fit with at least half the optima."""
    found = [value for value, count in estimates if 2 * count >= estimates[0][1] and math.isfinite(value)]
    return float(np.std(found)) if found else 0.0


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One optimum: ``x`` is log2 of the arm's size, ``y`` log2 of the optimal rate, ``sd`` its standard error."""

    replicate: str
    x: float
    y: float
    sd: float


def _rows(fits: Fits, arms: Sequence[Arm]) -> list[_Row]:
    """Of the replicates that have an optimum in two arms."""
    rows = [
        _Row(replicate=name, x=math.log2(arm.size), y=at(fit), sd=vertex_sd(fit))
        for arm in arms
        for name, fit in fits.resolved(arm).items()
    ]
    counts = Counter(row.replicate for row in rows)
    return [row for row in rows if counts[row.replicate] > 1]


def _centered(rows: Sequence[_Row]) -> list[tuple[float, float]]:
    """x and y of each row, less their means within the replicate."""
    own: dict[str, list[_Row]] = {}
    for row in rows:
        own.setdefault(row.replicate, []).append(row)
    mean = {name: (np.mean([r.x for r in of]), np.mean([r.y for r in of])) for name, of in own.items()}
    return [(row.x - float(mean[row.replicate][0]), row.y - float(mean[row.replicate][1])) for row in rows]


def _slope_error(rows: Sequence[_Row], slope: float, df: int) -> tuple[float, int]:
    """Standard error of a slope with its degrees of freedom: the larger one of two.

    One is from the optima's own errors, of ``df`` each, the other from their distances to the power law.
    """
    centered = _centered(rows)
    weight = sum(x * x for x, _ in centered)
    own = math.sqrt(sum((x * row.sd) ** 2 for (x, _), row in zip(centered, rows, strict=True))) / weight
    left = len(rows) - len({row.replicate for row in rows}) - 1
    rest = math.sqrt(sum((y - slope * x) ** 2 for x, y in centered) / left / weight) if left else 0.0
    return (rest, left) if rest > own else (own, df * len(rows))


def _slope(rows: Sequence[_Row]) -> float:
    """Least squares with an intercept for each replicate; NaN where no replicate has two sizes."""
    centered = _centered(rows)
    weight = sum(x * x for x, _ in centered)
    return sum(x * y for x, y in centered) / weight if weight > 0 else math.nan
