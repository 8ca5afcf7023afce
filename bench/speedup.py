"""What experts bring on the memory task, with tables and seeds that nothing was chosen on.

    python bench/speedup.py --tables 1,2 --first-seed 100 --out reports/bench

Asks the questions of suites/test_speed.py at the cpu tier, and writes speedup.md. Records are kept in STUDY, so an
interrupted run can continue.
"""

import argparse
from pathlib import Path

from mue_check.catalog import get_tier
from mue_check.execute.process import prepare_process
from mue_check.questions.speed import SpeedupFinding, ask_speed, speedup_table
from mue_check.questions.tune_once import TuneOnceFinding, ask_tune_once, ask_tune_once_control, tune_once_table
from mue_check.report.markdown import markdown_table
from mue_check.rules import get_rule
from mue_check.study.folder import Study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default="1,2")
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--study", type=Path, default=Path("reports/speedup"))
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    options = parser.parse_args()
    prepare_process()
    tier, command = get_tier("cpu"), f"python bench/speedup.py --tables {options.tables} --first-seed"
    faster: list[SpeedupFinding] = []
    lower: list[TuneOnceFinding] = []
    for table in options.tables.split(","):
        study = Study(
            root=options.study,
            tier=tier,
            corpus=f"memory:{table}",
            rule=get_rule("complete_mue"),
            tolerance=tier.tolerance,
            command=f"{command} {options.first_seed}",
            first_seed=options.first_seed,
        )
        study.store.prepare()
        for ladder in tier.ladders("speed", "tune_once"):
            lower.append(ask_tune_once(study, ladder))
            if ladder.name == "tune_once_granularity":
                lower.append(ask_tune_once_control(study.with_rule(get_rule("completep_blind")), ladder))
            print(lower[-1].measured, flush=True)
        (ladder,) = tier.ladders("speed", "speed")
        for target in ladder.targets:
            faster.append(ask_speed(study, ladder, target))
            print(f"{target.label}: {faster[-1].measured}", flush=True)
    cells = {key for found in (*faster, *lower) for side in found.comparison.sides for key in side.cells}
    seconds = sum(map(study.store.cost, cells))
    lines = [
        "# Speed-up and tune-once",
        "",
        f"`{command} {options.first_seed}`: tables {options.tables} of the memory task, replicates with seeds from "
        f"{options.first_seed} on, {seconds:.0f} core-seconds. Terms: docs/glossary.md.",
        *("", "## Steps to the dense model's final loss, at a constant learning rate", ""),
        *markdown_table(speedup_table(faster)),
        *("", "## Final losses at the same base values, after the schedule's decay", ""),
        *markdown_table(tune_once_table(lower)),
    ]
    (options.out / "speedup.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
