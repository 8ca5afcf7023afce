"""The rate of false alarms: compare the reference many times with itself under other seeds, and count FAIL.

    python bench/null_controls.py --pairs 100 --workers 2 --out reports/calibration

Each pair is measured as in the suites, with more seeds while the verdict is open. Records are stored in STUDY, so an
interrupted run can continue. Writes null_controls.csv and null_controls.md.
"""

import argparse
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from mue_check.catalog import get_tier
from mue_check.execute.process import prepare_process
from mue_check.questions.controls import ask_null_control
from mue_check.questions.study import Study
from mue_check.rules import get_rule

SEED_OFFSET = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tier", default="cpu")
    parser.add_argument("--ladder", default="width")
    parser.add_argument("--study", type=Path, default=Path("reports/null"))
    parser.add_argument("--out", type=Path, default=Path("reports/calibration"))
    options = parser.parse_args()
    jobs = [(options.study, options.tier, options.ladder, pair) for pair in range(options.pairs)]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        rows = []
        for row in pool.map(measure_pair, jobs):
            rows.append(row)
            print(f"{len(rows)}/{len(jobs)} {row}", flush=True)
            write(pd.DataFrame(rows), options)
    print(render(pd.DataFrame(rows), options))


def write(table: pd.DataFrame, options: argparse.Namespace) -> None:
    """Write the table so far, so that an interrupted run keeps its results."""
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "null_controls.csv", index=False, float_format="%.4f")
    (options.out / "null_controls.md").write_text(render(table, options), encoding="utf-8")


def measure_pair(job: tuple[Path, str, str, int]) -> dict[str, object]:
    """The drift between two sets of seeds that no other pair uses."""
    root, tier_name, ladder_name, pair = job
    prepare_process()
    tier = get_tier(tier_name)
    study = Study(
        root=root,
        tier=tier,
        corpus="markov",
        rule=get_rule("complete_mue"),
        tolerance=tier.tolerance,
        command="python bench/null_controls.py",
    )
    study.store.prepare()
    ladder = tier.ladder(ladder_name)
    assert ladder is not None
    first = 10_000 + 2 * SEED_OFFSET * pair
    drift = ask_null_control(study, ladder, seeds=(first, first + SEED_OFFSET)).drift
    return {
        "pair": pair,
        "seeds": drift.interval.n,
        "drift": drift.interval.mean,
        "low": drift.interval.low,
        "high": drift.interval.high,
        "verdict": drift.verdict.value,
    }


def render(table: pd.DataFrame, options: argparse.Namespace) -> str:
    """The summary as Markdown."""
    verdicts = Counter(table["verdict"])
    resolved = table[table["drift"].notna()]
    covering = ((resolved["low"] <= 0) & (resolved["high"] >= 0)).mean()
    lines = [
        "# Null controls",
        "",
        f"`python bench/null_controls.py --pairs {len(table)}`: the reference of the {options.ladder} ladder "
        f"against itself with other seeds, tier {options.tier}, Markov source.",
        "",
        "| verdict | pairs |",
        "|---|---:|",
        *(f"| {name} | {count} |" for name, count in sorted(verdicts.items())),
        "",
        f"Mean drift {resolved['drift'].mean():+.3f} octaves, standard deviation {resolved['drift'].std():.3f}, "
        f"largest {resolved['drift'].abs().max():.2f}. The 95 % interval contains 0 in {covering:.0%} of the resolved "
        "pairs. "
        f"Seeds per side: {resolved['seeds'].mean():.1f} on average.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
