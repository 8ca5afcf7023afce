"""How well `mue_check plan` predicts: a plan against the study that was then run, and against the packed records.

    pytest suites/ --tier smoke --axes width,activated_experts --study STUDY
    python bench/plan_check.py --study STUDY --tier smoke --axes width,activated_experts --out reports/bench

The study is planned as if it were empty, and compared with the core-seconds that its cells took. Then the cells that
were really trained are priced, which leaves only the error of the prices. The packed records come from another machine
and an earlier version, so only relative costs are compared: ratios are divided by their median. The kinds of work that
have a price are justified from the timings in price_kinds.json. Writes plan.json and plan.md.
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
from mue_check.cost.calibration import fit_relative as fit
from mue_check.cost.plan import make_plan
from mue_check.cost.timing import calibrate, machine_of
from mue_check.cost.work import PRICED, SORT_CALLS, WEIGHT, batch_work
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
        "kinds": of_kinds(json.loads((REPORTS / "bench" / "price_kinds.json").read_text())),
    }
    (options.out / "plan.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "plan.md").write_text("\n".join(lines(found)) + "\n")


def of_study(study: Path, tier: str, axes: str, calibration: Calibration) -> dict[str, Any]:
    """Planned, priced and measured core-seconds, by measurement and in total."""
    with tempfile.TemporaryDirectory() as empty:
        arguments = ["--tier", tier, "--axes", axes, "--study", empty]
        plan = make_plan(arguments, calibration, 1)
    planned: defaultdict[str, float] = defaultdict(float)
    for test in plan.run.tests:
        for batch in test.new.batches:
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
    """Quantiles of measured over predicted seconds of the cells of the packed studies, relative to the median."""
    ratios: defaultdict[str, list[float]] = defaultdict(list)
    for study in STUDIES:
        with unpacked(REPORTS / study / "records.tar.xz") as folder:
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


def of_kinds(raw: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Errors of fits with nine, three and two kinds of work: leave-one-out, and on wider models than were fitted."""
    nine = [name for name in raw["wide"][0] if name not in ("stack", "seconds")]
    fits = {"all nine": nine, "calls, flop, numbers": [*PRICED], "calls, numbers": ["calls", "numbers"]}
    return {name: errors_of(raw, kinds) for name, kinds in fits.items()}


def errors_of(raw: Mapping[str, Any], kinds: list[str]) -> dict[str, Any]:
    """Leave-one-out errors as factors, and predicted over measured seconds of wide models, medians over the timings."""

    def amounts(row: Mapping[str, float]) -> list[float]:
        calls = row["steps"] + row["layers"] + SORT_CALLS * row["sorted"]
        numbers = row["moved"] + WEIGHT * (row["updated"] + row["scored"])
        return [{"calls": calls, "numbers": numbers, **row}[kind] for kind in kinds]

    missed: list[float] = []
    wide = []
    for timings in raw["timings"]:
        work, seconds = np.array([amounts(row) for row in timings]), np.array([row["seconds"] for row in timings])
        for left in range(len(seconds)):
            kept = np.arange(len(seconds)) != left
            missed.append(abs(math.log(work[left] @ fit(work[kept], seconds[kept]) / seconds[left])))
        prices = fit(work, seconds)
        wide.append([amounts(row) @ prices / row["seconds"] for row in raw["wide"]])
    ratios = np.median(wide, axis=0)
    return {
        "leave_one_out": {"median": math.exp(np.median(missed)), "worst": math.exp(max(missed))},
        "wide": [float(min(ratios)), float(max(ratios))],
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    study, records, machine = found["study"], found["records"], found["machine"]
    total = study["seconds"]["total"]
    out = [
        "# How well `mue_check plan` predicts",
        "",
        f"`{found['run']}` on one core of {machine['device']}, torch {machine['torch']}, while other processes ran.",
        f"Planned as if nothing were stored: {study['cells']['planned']} cells; trained in the end: "
        f"{study['cells']['measured']}. Priced: the cells that were trained, at the prices of the",
        "calibration, so that simulated losses play no part. Core-seconds:",
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
        f"The total is within a factor of {factor:.2f}. Errors of simulated losses and of prices may cancel. A timing "
        f"that is left out of the fit to all {found['calibration']['stacks']} is missed by a factor of "
        f"{found['calibration']['error']:.2f} (median).",
        "",
        "## Kinds of work with a price",
        "",
        "Three timings of the calibration's stacks (price_kinds.json), each fitted with the nine kinds of work in a",
        "step that once had a price, with the three that have one now, and without FLOP. (The other two of once eleven",
        "were for making a stack, which takes 2 ms.) `calls` are layers and steps, and layers that sort tokens count",
        f"{SORT_CALLS} more; `numbers` are activations moved, plus {WEIGHT} for each parameter updated or router score",
        "ranked. Wide models have d 256 to 1024; the calibration stops at 128.",
        "",
        "| fit | leave-one-out error, median | worst | wide models: predicted / measured |",
        "|---|---:|---:|---:|",
        *(
            f"| {name} | {row['leave_one_out']['median']:.2f} | {row['leave_one_out']['worst']:.2f} "
            f"| {row['wide'][0]:.2f} to {row['wide'][1]:.2f} |"
            for name, row in found["kinds"].items()
        ),
        "",
        "## Relative cost of the cells of reports/example and reports/sigma0",
        "",
        "Measured over predicted seconds of each cell, divided by the median over all cells "
        f"({records['median_ratio']:.2f}: those records are of an earlier version on a machine with another load).",
        "",
        "| measurement | cells | 10 % | median | 90 % |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in records["spread"].items():
        out.append(f"| {name} | {row['cells']} | {row['q10']:.2f} | {row['median']:.2f} | {row['q90']:.2f} |")
    return [*out, "", "Made by `python bench/plan_check.py` (see `--help`)."]


if __name__ == "__main__":
    main()
