"""Measure from the packed records of reports/ the spreads with which a plan simulates its losses.

python bench/plan_spreads.py --json mue_check/cost/spreads.json
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from packed import REPORTS, unpacked

from mue_check.judge.drift import Drift
from mue_check.judge.optimum import vertex_sd
from mue_check.questions.drift import judge_stored_drift
from mue_check.records import Store
from mue_check.records.files import read_json
from mue_check.rules.knob import group_of
from mue_check.study.comparison import Comparison, load_comparisons

STUDIES = ("example", "sigma0")
TEXT_SD = 0.16
"""Spread of one arm's optimum on text (docs/choices.md): the packed studies have only the Markov source."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    out = parser.parse_args().json
    spreads: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    drifts: defaultdict[str, list[float]] = defaultdict(list)
    power: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    offsets = []
    for study, c, drift in drifts_of():
        by_seed = list(drift.by_seed.values())
        name = c.ladder if c.knob == "lr" else f"{c.ladder}:{c.knob}"
        spread = float(np.std(by_seed, ddof=1))
        spreads[name].append((spread, len(by_seed) - 1))
        # registration needs no parabolas, and its spread already has the noise of the points
        expected = 0.0 if drift.registration else math.hypot(vertex_sd(drift.reference), vertex_sd(drift.target))
        power[name].append((max(spread, expected), len(by_seed) - 1))
        if c.axis != "control":
            drifts["complete_mue" if c.rule == "complete_mue" else "other"].append(drift.interval.mean)
        if group_of(c.knob):
            continue
        base = read_json(study.root / "cells" / f"{c.sides[0].cells[0]}.json")["cell"]["base"][c.knob]
        offsets.append(drift.reference.interval.mean - math.log2(base))
    values = {
        "made_by": "python bench/plan_spreads.py",
        "drift_sd": pooled(spreads),
        "power_sd": pooled(power),
        "drifts": {name: sorted(round(value, 2) for value in values) for name, values in sorted(drifts.items())},
        "offset_rms": round(float(np.sqrt(np.mean(np.square(offsets)))), 4),
    }
    out.write_text(json.dumps(values, indent=1) + "\n")


def pooled(pairs: dict[str, list[tuple[float, int]]]) -> dict[str, float]:
    """Standard deviations by ladder, that of all ladders together as ``markov``, and that of two arms on ``text``."""
    every = {**pairs, "markov": [pair for of_ladder in pairs.values() for pair in of_ladder]}
    sd = {name: math.sqrt(sum(v * v * df for v, df in p) / sum(df for _, df in p)) for name, p in every.items()}
    sd["text"] = TEXT_SD * math.sqrt(2)
    return {name: round(value, 4) for name, value in sorted(sd.items())}


def drifts_of() -> Iterator[tuple[Store, Comparison, Drift]]:
    """Every resolved drift of the packed studies."""
    for name in STUDIES:
        with unpacked(REPORTS / name / "records.tar.xz") as folder:
            store = Store(folder)
            for c in load_comparisons(store.root):
                if c.kind == "drift":
                    drift = judge_stored_drift(store, c).drift
                    if drift.reason is None:
                        yield store, c, drift


if __name__ == "__main__":
    main()
