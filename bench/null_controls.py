"""The rate of false alarms: compare the reference many times with itself under other seeds, and count verdicts.

    python bench/null_controls.py --pairs 50 --seeds 96 --out reports/calibration

A pool of fresh seeds is measured for each corpus and knob, all at the same values. Records are stored in STUDY, so an
interrupted run can continue. Pairs of arms are then drawn from a pool, and each is judged as in the suites: a look at
every number of seeds, until the answer is settled. The two arms of a pair have no seed in common, so a verdict is as
likely as it is for a pair measured afresh. Pairs share seeds with other pairs: this does not change the expected
counts, but they vary more from one campaign to the next. Writes null_controls.csv and null_controls.md.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from mue_check.axes import Ladder, Regime
from mue_check.catalog import get_tier
from mue_check.execute.process import prepare_process
from mue_check.judge.drift import judge_drift
from mue_check.judge.interval import looks_text
from mue_check.judge.optimum import Curve
from mue_check.judge.verdict import Verdict
from mue_check.records import Cell, Store
from mue_check.rules import Knob, get_rule
from mue_check.rules.knob import is_judged_whole
from mue_check.study.arm import Arm, measure
from mue_check.study.folder import Study
from mue_check.study.search import GROUP, Grid, LossSearch, curves_by_look, grid_of, read_curve

TIER = get_tier("cpu")
POOLS: tuple[tuple[str, Regime, Knob], ...] = (
    ("markov", "sharp", "lr"),
    ("docstrings", "sharp", "lr"),
    ("pairs", "pairs", "lr:feed_forward"),
    ("docstrings", "sharp", "init_std:embedding"),
)
"""Corpus, task and swept value of each pool."""
FIRST_SEED = 10_000
"""Far from the seeds of the suites."""
TOGETHER = 12
"""Seeds that train together."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Seeds of the width ladder's reference on one corpus, at the values of a knob that the suites may try."""

    corpus: str
    regime: Regime
    knob: Knob
    root: Path
    seeds: int

    @property
    def study(self) -> Study:
        """The study of the suites, with the pool's folder."""
        rule = get_rule("complete_mue")
        return Study(root=self.root, tier=TIER, corpus=self.corpus, rule=rule, tolerance=TIER.tolerance, command="")

    @property
    def ladder(self) -> Ladder:
        """The width ladder, with the pool's task."""
        ladder = TIER.ladder("width")
        assert ladder is not None
        return replace(ladder, regime=self.regime)

    @property
    def arm(self) -> Arm:
        """The reference, with the pool's seeds."""
        return replace(self.study.arm(self.ladder, self.ladder.reference, knob=self.knob), first_seed=FIRST_SEED)

    @property
    def start(self) -> float:
        """log2 of the value at which the suites begin to search."""
        return self.study.task(self.ladder).log2_start(self.knob)

    @property
    def grid(self) -> Grid:
        """That of the suites."""
        return grid_of(self.knob, self.study.task(self.ladder).grid_step)

    @property
    def cells(self) -> list[Cell]:
        """What is measured, in the order of seeds."""
        grid = self.grid
        # a grid that follows the minimum may need one more value on each side
        x = (grid if grid is GROUP else replace(grid, reach=grid.reach + 1)).around(self.start)
        firsts = range(0, self.seeds, TOGETHER)
        return [self.arm.cell("loss_grid", [2.0**v for v in x], range(i, i + TOGETHER)) for i in firsts]

    def curve(self) -> Curve:
        """The losses of the seeds that are measured so far."""
        store = self.study.store
        return read_curve(store, [cell.key for cell in self.cells if store.has(cell)], first_seed=FIRST_SEED)


class PoolSearch(LossSearch):
    """The search of the suites, among the values of a pool. Replicate i is the pool's seed ``seeds[i]``."""

    def __init__(self, pool: Pool, losses: Curve, seeds: Sequence[int]) -> None:
        super().__init__(pool.arm, pool.study.store, pool.grid)
        self.pool, self.seeds = losses, seeds

    def curve(self) -> Curve:
        """The values that every replicate so far has."""
        found = set.intersection(*self._measured.values())
        at = [i for i, x in enumerate(self.pool.x) if any(abs(x - value) < 1e-6 for value in found)]
        rows = list(self.seeds[: len(self._measured)])
        return Curve(
            values=self.pool.values[at],
            seeds=tuple(range(len(rows))),
            losses=self.pool.losses[np.ix_(rows, at)],
            initial=self.pool.initial[rows],
        )

    def _measure(self, missing: Mapping[int, Sequence[float]]) -> None:
        """Nothing: the pool is measured."""


def train(pools: Sequence[Pool]) -> None:
    """Measure what is missing, the first seeds of all pools first."""
    for cells in zip(*(pool.cells for pool in pools), strict=True):
        for pool, cell in zip(pools, cells, strict=True):
            measure([cell], pool.study.store)
            print(f"{pool.corpus} {pool.knob}: seeds to {cell.seeds[-1]}", flush=True)


def pairs_of_seeds(seeds: int, count: int, each: int) -> Iterator[tuple[list[int], list[int]]]:
    """``count`` random pairs of disjoint sets of ``each`` seeds, such that all seeds are used about equally often."""
    rng = np.random.default_rng(0)
    order: list[int] = []
    for _ in range(count):
        if len(order) < 2 * each:
            order = [int(i) for i in rng.permutation(seeds)]
        yield order[:each], order[each : 2 * each]
        order = order[2 * each :]


def judge(pool: Pool, losses: Curve, count: int) -> list[dict[str, object]]:
    """The verdicts on ``count`` pairs from a pool with these losses."""
    half_width = pool.study.task(pool.ladder).half_width
    rows: list[dict[str, object]] = []
    for number, pair in enumerate(pairs_of_seeds(len(losses.seeds), count, TIER.looks[-1])):
        searches = [PoolSearch(pool, losses, seeds) for seeds in pair]
        for curves in curves_by_look(searches, pool.start, TIER.looks):
            drift = judge_drift(*curves, TIER.tolerance, looks=TIER.looks, whole=is_judged_whole(pool.knob))
            if drift.settled(half_width):
                break
        rows.append(
            {
                "corpus": pool.corpus,
                "knob": pool.knob,
                "pool": len(losses.seeds),
                "pair": number,
                "seeds": len(curves[0].seeds),
                "drift": drift.interval.mean,
                "low": drift.interval.low,
                "high": drift.interval.high,
                "verdict": drift.verdict.value,
                "reason": drift.reason or "",
            }
        )
    return rows


def render(table: pd.DataFrame) -> str:
    """The counts as Markdown."""
    lines = [
        "# Null controls",
        "",
        "`python bench/null_controls.py`: the reference of the width ladder against itself with other seeds, tier "
        f"{TIER.name}, judged as in the suites at {looks_text(TIER.looks)} seeds. The two sides of a pair share no "
        "seed; the pairs of a row draw from one pool of seeds. Drifts are in octaves.",
        "",
        "| corpus | knob | pool | pairs | PASS | FAIL | INCONCLUSIVE | seeds | mean drift | sd | largest | 0 inside |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (corpus, knob, pool), part in table.groupby(["corpus", "knob", "pool"], sort=False):
        lines.append(_row(part, f"{corpus} | {knob} | {pool}"))
    lines.append(_row(table, "all | |"))
    return "\n".join(lines) + "\n"


def _row(part: pd.DataFrame, name: str) -> str:
    counts = [int((part["verdict"] == verdict).sum()) for verdict in (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE)]
    covering = int(((part["low"] <= 0) & (part["high"] >= 0)).sum())
    drift = part["drift"]
    return (
        f"| {name} | {len(part)} | {' | '.join(map(str, counts))} | {part['seeds'].mean():.1f} | {drift.mean():+.3f} "
        f"| {drift.std():.3f} | {drift.abs().max():.2f} | {covering} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=50, help="pairs of each pool")
    parser.add_argument("--seeds", type=int, default=96, help=f"seeds of each pool, a multiple of {TOGETHER}")
    parser.add_argument("--study", type=Path, default=Path("reports/null"), help="where the pools are stored")
    parser.add_argument("--out", type=Path, default=Path("reports/calibration"))
    options = parser.parse_args()
    prepare_process()
    pools = [
        Pool(corpus=corpus, regime=regime, knob=knob, root=options.study, seeds=options.seeds)
        for corpus, regime, knob in POOLS
    ]
    Store(options.study).prepare()
    train(pools)
    table = pd.DataFrame([row for pool in pools for row in judge(pool, pool.curve(), options.pairs)])
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "null_controls.csv", index=False, float_format="%.4f")
    # the page shows what the table holds
    text = render(pd.read_csv(options.out / "null_controls.csv"))
    (options.out / "null_controls.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
