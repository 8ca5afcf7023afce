"""How well `mue_check plan` predicts: a plan against the study that was then run, and against the packed records.

    pytest suites/ --tier smoke --axes width,activated_experts --study STUDY
    python bench/plan_check.py --study STUDY --tier smoke --axes width,activated_experts --out reports/bench

The study is planned as if it were empty and compared with the core-seconds that its cells took. Then the cells that
were really measured are priced, which isolates the error of the prices. The packed records come from another machine
and an earlier version, so only relative costs can be predicted: ratios are divided by their median.
Writes plan.json and plan.md.
"""

import argparse
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from packed import REPORTS, rebuild, unpacked

from mue_check.cost.calibration import Calibration
from mue_check.cost.plan import make_plan
from mue_check.cost.timing import calibrate, machine_of
from mue_check.cost.work import batch_work
from mue_check.execute.batches import make_batches
from mue_check.records import Cell, Store
from mue_check.records.files import read_json

STUDIES = ("example", "sigma0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--tier", default="smoke")
    parser.add_argument("--axes", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    calibration = calibrate("cpu")
    found = {
        "machine": machine_of("cpu"),
        "calibration": {"prices": calibration.prices, "error": calibration.error, "stacks": calibration.stacks},
        "run": f"pytest suites/ --tier {options.tier} --axes {options.axes}",
        "study": of_study(options.study, options.tier, options.axes, calibration),
        "records": of_records(calibration),
    }
    (options.out / "plan.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "plan.md").write_text("\n".join(lines(found)) + "\n")


def of_study(study: Path, tier: str, axes: str, calibration: Calibration) -> dict[str, Any]:
    """Planned against measured core-seconds, in all and by measurement; and the prices alone."""
    with tempfile.TemporaryDirectory() as empty:
        arguments = [str(REPORTS.parent / "suites"), "--tier", tier, "--axes", axes, "--study", empty]
        plan = make_plan(arguments, calibration, 1)
    planned: defaultdict[str, float] = defaultdict(float)
    for asked in plan.collected.asked:
        for batch in asked.wanted.batches:
            planned[batch[0].measurement] += calibration.seconds(batch_work(batch))
    cells = cells_of(study)
    measured: defaultdict[str, float] = defaultdict(float)
    priced: defaultdict[str, float] = defaultdict(float)
    for cell, seconds in cells.values():
        measured[cell.measurement] += seconds
    for batch in make_batches(cell for cell, _ in cells.values()):
        priced[batch[0].measurement] += calibration.seconds(batch_work(batch))
    rows = {
        name: {"planned": planned[name], "priced": priced[name], "measured": measured[name]}
        for name in sorted({*planned, *measured}, key=lambda name: -measured[name])
    }
    rows["total"] = {key: sum(row[key] for row in rows.values()) for key in ("planned", "priced", "measured")}
    return {"cells": {"planned": plan.total.cells, "measured": len(cells)}, "seconds": rows}


def of_records(calibration: Calibration) -> dict[str, Any]:
    """Measured over predicted seconds of each cell of the packed studies, relative to the median: quantiles."""
    ratios: defaultdict[str, list[float]] = defaultdict(list)
    for study in STUDIES:
        with unpacked(REPORTS / study / "records.tar.gz") as folder:
            cells = cells_of(folder)
        for cell, seconds in cells.values():
            if seconds > 0 and cell.measurement != "optimizer":  # milliseconds
                name = f"{study}: {cell.measurement}"
                ratios[name].append(math.log(seconds / calibration.seconds(batch_work([cell]))))
    every = [value for values in ratios.values() for value in values]
    middle = float(np.median(every))
    return {
        "median_ratio": math.exp(middle),
        "spread": {
            name: {"cells": len(values), **quantiles(value - middle for value in values)}
            for name, values in [*sorted(ratios.items()), ("all", every)]
        },
    }


def quantiles(logs: Iterable[float]) -> dict[str, float]:
    """10 %, median and 90 %, as factors."""
    q10, q50, q90 = np.exp(np.quantile(list(logs), [0.1, 0.5, 0.9]))
    return {"q10": float(q10), "median": float(q50), "q90": float(q90)}


def cells_of(study: Path) -> dict[str, tuple[Cell, float]]:
    """Every recorded cell with its core-seconds, by key."""
    store = Store(study)
    return {
        path.stem: (rebuild(read_json(path)["cell"]), store.cost(path.stem))
        for path in sorted((study / "cells").glob("*.json"))
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    study, records, machine = found["study"], found["records"], found["machine"]
    total = study["seconds"]["total"]
    out = [
        "# How well `mue_check plan` predicts",
        "",
        f"`{found['run']}` on one core of {machine['device']}, torch {machine['torch']}, other processes running.",
        f"Planned as if nothing were stored: {study['cells']['planned']} cells; asked for in the end: "
        f"{study['cells']['measured']}. Priced: the cells that were asked for, at the prices of the",
        "calibration, without what the plan simulates. Core-seconds:",
        "",
        "| measurement | planned | priced | measured | planned / measured | priced / measured |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, row in study["seconds"].items():
        measured = row["measured"]
        ratio = [f"{row[key] / measured:.2f}" for key in ("planned", "priced")] if measured >= 1 else ["", ""]
        cells = [f"{row[key]:.1f}" for key in ("planned", "priced", "measured")]
        out.append(f"| {' | '.join([name, *cells, *ratio])} |")
    factor = max(total["planned"] / total["measured"], total["measured"] / total["planned"])
    out += [
        "",
        f"The total is within a factor of {factor:.2f}; errors of simulated cells and of prices may cancel. Of the "
        f"{found['calibration']['stacks']} timings of the calibration, one that is left out of the fit is "
        f"predicted within a factor of {found['calibration']['error']:.2f} (median).",
        "",
        "## Relative cost of the cells of reports/example and reports/sigma0",
        "",
        "Measured over predicted seconds of each cell, divided by the median over all cells "
        f"({records['median_ratio']:.2f}: those records are of an earlier version, under another load of the machine).",
        "",
        "| measurement | cells | 10 % | median | 90 % |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in records["spread"].items():
        out.append(f"| {name} | {row['cells']} | {row['q10']:.2f} | {row['median']:.2f} | {row['q90']:.2f} |")
    return [*out, "", "`python bench/plan_check.py --help` says how this is made."]


if __name__ == "__main__":
    main()
