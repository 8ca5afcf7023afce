"""What the first 100 steps see of two mistakes with experts: A missing and R missing, on every source.

    python bench/early_mistakes.py --out reports/bench

Records are kept in STUDY, so an interrupted run can continue. Writes early_mistakes.md.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from mue_check.axes import Ladder, Regime, Rung
from mue_check.axes.scale import dense
from mue_check.catalog import get_tier
from mue_check.execute.process import prepare_process
from mue_check.judge.early import EarlyComparison, compare_early
from mue_check.mutants.rules import A_missing, R_missing
from mue_check.questions.early import EARLY_STEPS
from mue_check.rules import get_rule
from mue_check.spec import Experts, ModelSpec
from mue_check.study.arm import Arm, measure
from mue_check.study.folder import Study

SOURCES: dict[str, Regime] = {"markov": "sharp", "pairs": "pairs", "memory": "memory", "docstrings": "sharp"}
TARGETS = ("16e8a-h32", "16e16a-h32", "16e16a-h2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("reports/early"))
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    options = parser.parse_args()
    prepare_process()
    lines = [
        "# What the first 100 steps see of mistakes with experts",
        "",
        "`python bench/early_mistakes.py`: log2 of the loss over that of the dense reference, 4 seeds, at the base "
        "values. Level, then trend per doubling of the step.",
        "",
        "| source | target | right | A missing | R missing |",
        "|---|---|---|---|---|",
    ]
    for corpus, regime in SOURCES.items():
        tier, rule = get_tier("cpu"), get_rule("complete_mue")
        study = Study(root=options.study, tier=tier, corpus=corpus, rule=rule, tolerance=tier.tolerance, command="")
        study.store.prepare()
        rungs = [Rung(label="dense", size=1, model=dense(32, 2)), *map(_rung, TARGETS)]
        ladder = Ladder.of(rungs, axis="activated_experts", regime=regime)
        for rung in ladder.targets:
            right = study.arm(ladder, rung)
            wrong = [replace(right, prescription=m.build(right.prescription)) for m in (A_missing, R_missing)]
            found = [_compare(study, study.arm(ladder, ladder.reference), arm) for arm in (right, *wrong)]
            lines.append(f"| {corpus} | {rung.label} | {' | '.join(map(_text, found))} |")
            print(lines[-1], flush=True)
    (options.out / "early_mistakes.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rung(label: str) -> Rung:
    notation, width = label.split("-h")
    model = ModelSpec(width=32, depth=2, feed_forward=Experts.from_notation(notation, hidden=int(width)))
    return Rung(label=label, size=2 + TARGETS.index(label), model=model)


def _compare(study: Study, reference: Arm, target: Arm) -> EarlyComparison:
    cells = [a.cell("early_curve", [a.base.lr], range(study.tier.seeds), (EARLY_STEPS,)) for a in (reference, target)]
    measure(cells, study.store)
    ours, theirs = (study.store.rows(cell.key) for cell in cells)
    return compare_early(ours, theirs)


def _text(found: EarlyComparison) -> str:
    return f"{found.level.text(3)}, {found.trend.text(4)} {found.verdict}"


if __name__ == "__main__":
    main()
