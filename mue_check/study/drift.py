"""Ask for the drift between two rungs: search both optima, judge, and add seeds while the answer is open."""

from dataclasses import replace

from mue_check.axes import Ladder, Rung
from mue_check.judge.drift import Drift, judge_drift
from mue_check.judge.verdict import Verdict
from mue_check.study.answer import Answer
from mue_check.study.arm import Arm
from mue_check.study.search import LossSearch
from mue_check.study.setting import Study, side_of

NULL_SEED = 1000
"""First seed of the null control: far from every other replicate's."""


def ask_drift(study: Study, ladder: Ladder, target: Rung) -> Answer[Drift]:
    """Drift of the optimum from the ladder's reference to ``target`` under the study's rule; PASS expected."""
    arms = [study.arm(rung, study.prescription(ladder, rung)) for rung in (ladder.reference, target)]
    name = f"{ladder.axis}-{study.corpus_name}-{study.rule.name}-{target.label}"
    return _ask(study, name, ladder.axis, (ladder.reference, target), arms, Verdict.PASS)


def ask_null_control(study: Study, ladder: Ladder) -> Answer[Drift]:
    """The ladder's reference against itself with other seeds: PASS expected, at the tier's own tolerance."""
    study = replace(study, tolerance=study.tier.tolerance)
    rung = ladder.reference
    arm = study.arm(rung, study.prescription(ladder, rung))
    name = f"control-null-{ladder.axis}-{study.corpus_name}-{rung.label}"
    return _ask(study, name, "control", (rung, rung), [arm, replace(arm, first_seed=NULL_SEED)], Verdict.PASS)


def ask_positive_control(study: Study, ladder: Ladder, target: Rung) -> Answer[Drift]:
    """The study's rule is one that is known to drift on this ladder: FAIL expected, at the tier's own tolerance.

    A user's wider tolerance says what is harmless, not what the suite must be able to see.
    """
    study = replace(study, tolerance=study.tier.tolerance)
    arms = [study.arm(rung, study.prescription(ladder, rung)) for rung in (ladder.reference, target)]
    name = f"control-{study.rule.name}-{ladder.axis}-{study.corpus_name}-{target.label}"
    return _ask(study, name, "control", (ladder.reference, target), arms, Verdict.FAIL)


def _ask(
    study: Study, name: str, axis: str, rungs: tuple[Rung, Rung], arms: list[Arm], expected: Verdict
) -> Answer[Drift]:
    searches = [LossSearch(arm, study.store) for arm in arms]
    task = study.tier.task(study.corpus)
    best = searches[0].follow(searches[0].locate(task.log2_lr))
    centers = [best, searches[1].follow(best)]
    replicates = study.tier.seeds
    while True:
        reference, target = (
            search.refine(center, replicates) for search, center in zip(searches, centers, strict=True)
        )
        drift = judge_drift(reference, target, study.tolerance)
        precise = drift.interval.half_width <= task.half_width
        settled = drift.verdict is Verdict.FAIL or (drift.verdict is Verdict.PASS and precise)
        if settled or drift.reason is not None or replicates >= study.tier.max_seeds:
            break
        replicates += 1
    sides = tuple(side_of(rung, s.arm, s.cells) for rung, s in zip(rungs, searches, strict=True))
    comparison = study.save("drift", name, axis, study.tolerance, sides, expected)
    return Answer(comparison=comparison, result=drift, verdict=drift.verdict, measured=str(drift))
