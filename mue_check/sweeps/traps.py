"""What a table hides, in one line each: holes, diverged runs, arms that differ in more than one thing, one seed."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import scipy

from mue_check.judge.optimum import mean_minimum
from mue_check.sweeps.names import meaning_of
from mue_check.sweeps.sweep import Sweep, label_of

_LEVEL = 0.01
"""Holes fall at random if chance alone would place them so unevenly more often than this."""
_LEAST_FILLED = 0.5
"""With less of its grid filled, a sweep is no grid but a random search."""
_KNOBS = ("weight_decay", "wd", "warmup", "warmup_steps", "beta1", "beta2", "eps", "epsilon", "dropout", "momentum")


def traps(sweep: Sweep) -> list[str]:
    """Everything that is found, after what the cleaning said."""
    return [text for trap in _TRAPS for text in trap(sweep)]


def _holes(sweep: Sweep) -> Iterator[str]:
    """Points of a cell's grid that were not run, and where they are if they are not anywhere."""
    points = sweep.frame[["cell", "arm", "x"]].drop_duplicates()
    grids = points.groupby("cell")
    whole = pd.concat([_grid(cell, rows) for cell, rows in grids], ignore_index=True)
    counts = grids.x.nunique()
    if len(points) < _LEAST_FILLED * len(whole):
        yield f"the points are no grid ({len(points)} of {len(whole)}): where a search looked is not random either"
        return
    if counts.min() < counts.max():
        short = [cell for cell, count in counts.items() if count == counts.min()]
        yield (
            f"the cells have different grids, of {counts.min()} to {counts.max()} rates; the smallest: {short[0]}"
            + (f" and {len(short) - 1} more" if len(short) > 1 else "")
        )
    merged = whole.merge(points, how="left", indicator=True)
    hole = merged["_merge"] == "left_only"
    if not hole.any():
        return
    uneven = [text for name in ("arm", "cell", "x") if (text := _uneven(merged[name], hole, sweep))]
    where = f", not at random: {'; '.join(uneven)}" if uneven else ", with no pattern"
    yield f"{hole.sum()} of {len(merged)} points of the grids are missing{where}"


def _uneven(group: "pd.Series", hole: "pd.Series", sweep: Sweep) -> str:
    """The group with the largest share of holes, if they spread over groups less evenly than chance would."""
    names = list(group.unique())
    found = np.array([int(hole[group == name].sum()) for name in names])
    size = np.array([int((group == name).sum()) for name in names])
    if len(names) < 2 or scipy.stats.chisquare(found, found.sum() * size / size.sum()).pvalue >= _LEVEL:
        return ""
    worst = int(np.argmax(found / size))
    kind = {"arm": f"{sweep.columns.arm} ", "cell": "", "x": "rate "}[str(group.name)]
    name = f"{2 ** names[worst]:.3g}" if group.name == "x" else names[worst]
    return f"{kind}{name} lacks {found[worst]} of {size[worst]}"


def _grid(cell: object, rows: pd.DataFrame) -> pd.DataFrame:
    """All arms of a cell at all of its rates."""
    index = pd.MultiIndex.from_product([[cell], rows.arm.unique(), rows.x.unique()], names=["cell", "arm", "x"])
    return index.to_frame(index=False)


def _diverged(sweep: Sweep) -> Iterator[str]:
    lost = sweep.frame[sweep.frame.diverged]
    if len(lost):
        finite = lost[np.isfinite(lost[sweep.columns.losses[0]])]
        high = f", {len(finite)} of them with a finite loss far above the valley" if len(finite) else ""
        yield f"{len(lost)} of {len(sweep.frame)} runs diverged{high}, from rate {2 ** lost.x.min():.3g} on: not fitted"


def _more_than_one_thing(sweep: Sweep) -> Iterator[str]:
    """Columns that differ between arms of a cell, next to the arm itself."""
    arm, pair = sweep.columns.arm, list(sweep.columns.pair)
    if arm is None:
        return
    cells = sweep.table.groupby([sweep.frame.cell], sort=False)
    others = [name for name in sweep.columns.design if name not in (arm, *pair)]
    follow = [name for name in others if (cells[name].nunique() > 1).any()]
    within = sweep.table.groupby([sweep.frame.cell, sweep.frame.arm], sort=False)
    mixed = [name for name in follow if (within[name].nunique() > 1).any()]
    along = [name for name in follow if name not in mixed]
    if along:
        yield f"arms differ in more than one thing: with {arm!r} also change {', '.join(map(repr, along))}"
    if mixed:
        yield f"{', '.join(map(repr, mixed))} differs within an arm and is not paired: add it to --pair"


def _uncontrolled(sweep: Sweep) -> Iterator[str]:
    """Hyperparameters that vary from run to run, so that a curve is no curve of the learning rate alone."""
    roles = {sweep.columns.x, sweep.columns.arm, sweep.columns.seed, *sweep.columns.pair, *sweep.columns.design}
    by = [sweep.frame.arm, sweep.frame.cell]
    for name in sweep.table.columns:
        is_knob = meaning_of(name) in _KNOBS or str(name).rpartition(".")[2].removeprefix("params_") in _KNOBS
        if name not in roles and is_knob and (sweep.table.groupby(by)[name].nunique() > 1).any():
            values = ", ".join(label_of(value) for value in sweep.table[name].dropna().unique()[:3])
            yield f"{name!r} varies along the curves ({values}, ...): their optimum is not that of the rate alone"


def _at_an_end(sweep: Sweep) -> Iterator[str]:
    """Curves whose lowest loss is at an end of their grid: what is left out there is not a random choice."""
    for end, sign in (("lowest", -1), ("highest", 1)):
        arms, total = {}, 0
        for arm in sweep.arms:
            curves = sweep.curves(arm, sweep.columns.losses[0]).values()
            total += len(curves)
            arms[arm.label] = sum(mean_minimum(curve) == (0 if sign < 0 else len(curve.values) - 1) for curve in curves)
        if count := sum(arms.values()):
            most = max(arms, key=lambda label: arms[label])
            yield (
                f"the optimum is at an edge: at the {end} rate in {count} of {total} curves, most of them of {most}; "
                f"without them a mean optimum is too {'high' if sign < 0 else 'low'}"
            )


def _one_seed(sweep: Sweep) -> Iterator[str]:
    if len(sweep.seeds) > 1:
        counts = sweep.frame.groupby([sweep.frame.arm, sweep.frame.cell]).seed.nunique()
        if counts.min() < counts.max():
            yield f"arms have {counts.min()} to {counts.max()} seeds"
        ran = sweep.frame.groupby(["arm", "x"]).seed.transform("nunique")
        if sweep.is_seeded and (some := ran < sweep.frame.groupby("arm").seed.transform("nunique")).any():
            yield f"{some.sum()} runs are left out, at rates that not every seed of their arm ran"
        names = [set(seeds) for _, seeds in sweep.frame.groupby("arm").seed]
        if sweep.is_seeded and len(names) > 1 and not set.intersection(*names):
            yield "no seed is in every arm: seeds pair by their names, and an exponent needs pairs"
        cells = len(sweep.cells)
        if sweep.cells_are_replicates:
            yield f"the {cells} matched cells are the replicates: seeds within a cell are averaged, not counted"
        elif cells > 1:
            yield (
                f"{cells} matched cells of several seeds: seeds of one cell do not tell how cells differ, so the "
                "interval is the widest over cells, over seeds, and over all; a fourth cell makes it much narrower"
            )
        return
    if sweep.cells_are_replicates:
        yield f"one seed a point: the {len(sweep.cells)} matched cells are the replicates, not seeds"
    elif math.isfinite(sweep.frame.x.min()):
        yield "one seed a point: how far other seeds would differ is unknown, and no drift can PASS"


_TRAPS: tuple[Callable[[Sweep], Iterator[str]], ...] = (
    _holes,
    _diverged,
    _at_an_end,
    _more_than_one_thing,
    _uncontrolled,
    _one_seed,
)
