"""How sharp the loss curve of one role group is, on which source, and what a seed costs.

    python bench/sources.py --study reports/sources --out reports/bench

Each curve has nine values, an octave apart, around the base value, and seeds that no tier uses. Records are stored in
STUDY, so an interrupted run can continue. Writes sources.csv and sources.md.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from mue_check.axes.scale import dense
from mue_check.catalog import get_tier
from mue_check.execute.process import prepare_process
from mue_check.judge.optimum import Curve
from mue_check.records import Store
from mue_check.rules import Knob, base_value, get_rule
from mue_check.spec import Scenario
from mue_check.study.arm import Arm, measure
from mue_check.study.search import read_curve
from mue_check.tiers import Task

FIRST_SEED = 70_000
OCTAVES = range(-4, 5)
MODEL = dense(32, 2)
_CPU = get_tier("cpu")
_PAIRS, _SHARP = _CPU.task("markov", "pairs"), _CPU.task("markov", "sharp")
KNOBS: tuple[Knob, ...] = ("lr:attention", "lr:feed_forward", "lr:unembedding", "multiplier:unembedding")

NUMBERS = {
    "knob": "s",
    "loss": ".3f",
    "lowest at": "+.0f",
    "left": ".0f",
    "right": ".0f",
    "c": ".1f",
    "sigma": ".0f",
    "sd": ".2f",
    "cost": ".1f",
    "sd^2 cost": ".3f",
}
"""Columns of the report, and how they are written."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A source, and how the reference trains on it."""

    corpus: str
    task: Task

    def __str__(self) -> str:
        train, base = self.task.train, self.task.base
        size = f"{train.batch} x {train.context} x {train.steps}"
        return f"{self.corpus}, {size}, init std {base.init_std:g}, LR 2^{np.log2(base.lr):g}"


_SMALL_INIT = replace(_PAIRS, base=replace(_PAIRS.base, init_std=0.03))
SETTINGS = (
    Setting(corpus="pairs", task=_PAIRS),
    Setting(corpus="pairs", task=_SMALL_INIT),
    Setting(corpus="pairs:1", task=_SMALL_INIT),
    Setting(corpus="markov", task=_SHARP),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--study", type=Path, default=Path("reports/sources"))
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    options = parser.parse_args()
    prepare_process()
    store = Store(options.study)
    store.prepare()
    rows = []
    for row in measured(store, options.seeds):
        rows.append(row)
        print(f"{row['source']}, {row['knob']}", flush=True)
        write(pd.DataFrame(rows), options)


def measured(store: Store, seeds: int) -> Iterator[dict[str, object]]:
    """One row for each setting and knob."""
    for setting in SETTINGS:
        scenario = Scenario.of(MODEL, setting.task.train)
        for knob in KNOBS:
            arm = Arm(
                model=MODEL,
                prescription=get_rule("complete_mue").prescribe(scenario, scenario),
                base=setting.task.base,
                train=setting.task.train,
                corpus=setting.corpus,
                first_seed=FIRST_SEED,
                knob=knob,
            )
            start = base_value(knob, arm.base)
            cell = arm.cell("loss_grid", [start * 2.0**octave for octave in OCTAVES], range(seeds))
            measure([cell], store)
            curve = read_curve(store, [cell.key], first_seed=FIRST_SEED)
            yield {"source": str(setting), "knob": knob, **sharpness(curve, store.cost(cell.key) / seeds)}


def sharpness(curve: Curve, cost: float) -> dict[str, float]:
    """How well one seed tells where a curve lies. Losses in mnats, places in octaves, ``cost`` in core-seconds a seed.

    ``sigma`` is the noise of a loss, without what a seed has in common at all values. ``sd`` is the standard error of a
    shift from one seed, if the shape were known: 1 / sqrt(sum of (slope / noise)^2), which counts both walls, less what
    noise alone adds to that sum.
    """
    losses, x = curve.usable, curve.x
    mean = np.nanmean(losses, axis=0)
    best = int(np.nanargmin(mean))
    rest = losses - mean - np.nanmean(losses - mean, axis=1, keepdims=True)
    variance = np.nansum(rest**2, axis=0) / (len(losses) - 1)
    noise = variance / 2 + np.nanmean(variance) / 2  # of few seeds: drawn to the mean
    by_chance = (4 + (len(x) - 2) / 2) / len(losses)  # differences at the ends, and those over two steps
    known = float(np.nansum(np.gradient(mean, x) ** 2 / noise)) - by_chance
    sd = known**-0.5 if known > 0 else np.inf
    near = slice(max(best - 2, 0), best + 3)
    return {
        "loss": float(mean[best]),
        "lowest at": float(x[best] - x[len(x) // 2]),
        "left": 1000 * float(mean[0] - mean[best]),
        "right": 1000 * float(mean[-1] - mean[best]),
        "c": 1000 * float(np.polyfit(x[near], mean[near], 2)[0]),
        "sigma": 1000 * float(np.sqrt(np.nanmean(variance))),
        "sd": sd,
        "cost": cost,
        "sd^2 cost": sd**2 * cost,
    }


def write(table: pd.DataFrame, options: argparse.Namespace) -> None:
    """Write the table so far, so that an interrupted run keeps its results."""
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "sources.csv", index=False, float_format="%.4f")
    lines = [
        "# Sources for sweeps of one role group",
        "",
        f"`python bench/sources.py --seeds {options.seeds}`: {MODEL}, complete_mue, nine values an octave apart, seeds "
        f"from {FIRST_SEED} on.",
        "",
        "left, right: the loss at 4 octaves below and above the base over the lowest, in mnats. c: curvature at the "
        "lowest, in mnats per octave squared. sigma: noise of a loss, in mnats. sd: standard error of a shift from one "
        "seed if the shape were known, in octaves. cost: core-seconds a seed.",
        "",
        f"| source | {' | '.join(NUMBERS)} |",
        f"|---|---|{'---:|' * (len(NUMBERS) - 1)}",
    ]
    for row in table.to_dict("records"):
        numbers = " | ".join(f"{row[name]:{form}}" for name, form in NUMBERS.items())
        lines.append(f"| {row['source']} | {numbers} |")
    (options.out / "sources.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
