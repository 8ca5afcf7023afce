"""Registration of whole curves against parabolas through seeds' minima, on the same stored cells: what an answer costs.

python bench/estimators.py --out reports/bench/estimators.md
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from packed import REPORTS, unpacked

from mue_check.judge.drift import MIN_SEEDS, Drift, judge_drift
from mue_check.judge.interval import Interval
from mue_check.judge.optimum import Curve
from mue_check.questions.drift import judge_stored_drift
from mue_check.records import Store
from mue_check.study.comparison import Comparison, load_comparisons

STUDIES = ("example", "sigma0")
HALF_WIDTH = 0.3


@dataclass(frozen=True, kw_only=True)
class Rung:
    """Two stored curves, and the core-seconds of one seed of both."""

    reference: Curve
    target: Curve
    cost: float

    def judged(self, seeds: int) -> Drift:
        """With the first seeds only, as if their number had been fixed."""
        return judge_drift(*(_first(curve, seeds) for curve in (self.reference, self.target)), 0.5, whole=True)

    @property
    def seeds(self) -> int:
        """How many both arms have."""
        return min(len(self.reference.seeds), len(self.target.seeds))


Estimator = Callable[[Drift], Interval | None]


def by_registration(drift: Drift) -> Interval | None:
    """The interval of the verdict."""
    return drift.interval if drift.reason is None else None


def by_parabolas(drift: Drift) -> Interval | None:
    """The cross-check."""
    return drift.parabola if drift.is_fitted else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    rungs = list(stored_rungs())
    judged = [{seeds: rung.judged(seeds) for seeds in range(MIN_SEEDS, rung.seeds + 1)} for rung in rungs]
    columns = [column(estimate, rungs, judged) for estimate in (by_registration, by_parabolas)]
    lines = [f"| {name} | {' | '.join(values)} |" for name, *values in zip(ROWS, *columns, strict=True)]
    began = time.process_time()
    for rung in rungs[:20]:
        rung.judged(rung.seeds)
    ms = 1e3 * (time.process_time() - began) / min(20, len(rungs))
    out.write_text(
        "\n".join([INTRODUCTION.format(rungs=len(rungs)), "", *lines, "", f"A judgment takes {ms:.0f} ms.\n"])
    )


def column(estimate: Estimator, rungs: Sequence[Rung], judged: Sequence[dict[int, Drift]]) -> list[str]:
    """The figures of one estimator."""
    spent, answered, few, every, lost = 0.0, 0, [], [], 0
    for rung, drifts in zip(rungs, judged, strict=True):
        found = {seeds: estimate(drift) for seeds, drift in drifts.items()}
        half = {seeds: interval.half_width for seeds, interval in found.items() if interval}
        enough = [seeds for seeds in half if half[seeds] <= HALF_WIDTH]
        spent += rung.cost * min(enough, default=rung.seeds)
        answered += bool(enough)
        lost += found[rung.seeds] is None
        few.append(half.get(MIN_SEEDS, np.inf))
        every.append(half.get(rung.seeds, np.inf))
    name = "registration" if estimate is by_registration else "parabolas"
    return [
        name,
        "---:",
        f"{spent / max(answered, 1):.1f}",
        f"{answered / len(rungs):.0%}",
        f"{lost / len(rungs):.1%}",
        *(f"{np.median(widths):.2f}, {np.quantile(widths, 0.9):.2f}" for widths in (few, every)),
    ]


def stored_rungs() -> Iterator[Rung]:
    """Every pair of curves of the packed studies, once."""
    seen = set()
    for name in STUDIES:
        with unpacked(REPORTS / name / "records.tar.xz") as folder:
            store = Store(folder)
            for c in load_comparisons(store.root):
                cells = tuple(side.cells for side in c.sides)
                if c.kind == "drift" and cells not in seen:
                    seen.add(cells)
                    found = judge_stored_drift(store, c)
                    if min(len(found.reference.seeds), len(found.target.seeds)) >= MIN_SEEDS:
                        yield Rung(reference=found.reference, target=found.target, cost=_cost(store, c))


def _cost(store: Store, comparison: Comparison) -> float:
    """Core-seconds of one seed of both arms, the reference's included."""
    every = 0.0
    for side in comparison.sides:
        seeds = {seed for key in side.cells for seed in store.rows(key)["seed"]}
        every += sum(store.cost(key) for key in side.cells) / len(seeds)
    return every


def _first(curve: Curve, seeds: int) -> Curve:
    return replace(curve, seeds=curve.seeds[:seeds], losses=curve.losses[:seeds], initial=curve.initial[:seeds])


ROWS = (
    "",
    "---",
    f"core-seconds per rung answered to {HALF_WIDTH:g} octave",
    "rungs answered with the stored seeds",
    "rungs without a drift with all stored seeds",
    f"half-width with {MIN_SEEDS} seeds: median, 90 %",
    "half-width with all stored seeds: median, 90 %",
)
INTRODUCTION = """# Two estimators of a drift on the same cells

`python bench/estimators.py --out reports/bench/estimators.md`

The {rungs} pairs of curves in reports/example and reports/sigma0, judged with their first 4, 5, ... seeds until
the plain 95 % interval has a half-width of 0.3 octave. Half-widths are in octaves, at equal runs. Core-seconds are the
stored costs of both arms, in proportion to the seeds; those of rungs that are not answered are counted, too. The
stored seeds are those at which the parabolas were settled, which flatters the parabolas."""


if __name__ == "__main__":
    main()
