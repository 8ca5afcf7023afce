"""Ask for activation scales along a ladder, and for the early loss curves of two rungs."""

from collections.abc import Mapping
from dataclasses import replace

from mue_check.axes import Ladder, Rung
from mue_check.execute import ensure
from mue_check.judge.early import TREND_TOLERANCE, EarlyComparison
from mue_check.judge.law import COORDINATE_STEPS, LawResult
from mue_check.judge.verdict import Verdict, join
from mue_check.rules import Prescription
from mue_check.study.answer import Answer
from mue_check.study.reading import judge_coordinates, judge_early
from mue_check.study.setting import Study, side_of

COORDINATE_SEEDS = (12, 24)
"""Replicates, and how many more there are where the first leave the answer open."""
COORDINATE_INIT_STD, COORDINATE_LR = 0.05, 2.0**-8
"""Small init, so that what is learned outweighs what was drawn; small LR, so that 5 steps stay in one regime
(docs/choices.md)."""
EARLY_STEPS = 100


def ask_coordinates(
    study: Study, axis: str, mutants: Mapping[str, Prescription] | None = None
) -> Answer[list[LawResult]]:
    """Judge the laws of ``axis`` on all rungs of its ladder.

    ``mutants`` by rung label replace the rule's own prescriptions.
    """
    ladder = study.tier.coordinate_ladder(axis)
    arms = []
    for rung in ladder.rungs:
        arm = study.arm(rung, (mutants or {}).get(rung.label) or study.prescription(ladder, rung))
        width = ladder.reference.model.width / 32  # the values above were chosen at d = 32
        base = replace(arm.base, lr=COORDINATE_LR / width, init_std=COORDINATE_INIT_STD / width**0.5)
        train = replace(arm.train, steps=COORDINATE_STEPS[-1], warmup=0, final_lr=1.0)
        arms.append(replace(arm, base=base, train=train))
    keys: list[list[str]] = [[] for _ in arms]
    first = 0
    for seeds in COORDINATE_SEEDS:
        cells = [arm.cell("coordinates", [arm.base.lr], range(first, seeds), COORDINATE_STEPS) for arm in arms]
        ensure(cells, study.store)
        for known, cell in zip(keys, cells, strict=True):
            known.append(cell.key)
        sides = tuple(side_of(rung, arm, known) for rung, arm, known in zip(ladder.rungs, arms, keys, strict=True))
        results = judge_coordinates(study.store, axis, sides)
        if join(result.verdict for result in results) is not Verdict.INCONCLUSIVE:
            break
        first = seeds
    name = f"coordinates-{axis}-{study.corpus_name}-{study.rule.name}"
    tolerance = results[0].law.tolerance
    return Answer(
        comparison=study.save("coordinates", name, axis, tolerance, sides, Verdict.PASS),
        result=results,
        verdict=join(result.verdict for result in results),
        measured="\n".join(map(str, results)),
    )


def ask_early_curve(study: Study, ladder: Ladder, target: Rung) -> Answer[EarlyComparison]:
    """Compare the first steps of a rung with the reference's, both at the corpus's base learning rate."""
    rungs = (ladder.reference, target)
    arms = [study.arm(rung, study.prescription(ladder, rung)) for rung in rungs]
    steps = (min(EARLY_STEPS, arms[0].train.steps),)
    cells = [arm.cell("early_curve", [arm.base.lr], range(study.tier.seeds), steps) for arm in arms]
    ensure(cells, study.store)
    sides = tuple(side_of(rung, arm, [cell.key]) for rung, arm, cell in zip(rungs, arms, cells, strict=True))
    name = f"early-{ladder.axis}-{study.corpus_name}-{study.rule.name}-{target.label}"
    result = judge_early(study.store, sides)
    return Answer(
        comparison=study.save("early_curve", name, ladder.axis, TREND_TOLERANCE, sides, Verdict.PASS),
        result=result,
        verdict=result.verdict,
        measured=str(result),
    )
