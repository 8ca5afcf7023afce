"""Ask for the drift between two rungs: search both optima, judge, and add seeds while the answer is open."""

import math
from collections.abc import Mapping
from dataclasses import replace

from mue_check.axes import Ladder, Regime, Rung
from mue_check.judge.drift import Drift, judge_drift
from mue_check.judge.verdict import Verdict
from mue_check.questions.answer import Answer
from mue_check.questions.arm import Arm
from mue_check.questions.scales import Mutation
from mue_check.questions.search import LossSearch
from mue_check.questions.study import Study, side_of
from mue_check.rules import Knob, Role

NULL_SEED = 1000
"""First seed of the null control: far from every other replicate's."""


CONTROL_SEEDS = 12
_REGIMES: Mapping[Knob, Regime] = {"weight_decay": "noise"}
"""Where a knob other than the learning rate has a sharp optimum: decay is worth something where noise is to be
averaged (docs/choices.md)."""


def sweep_ladder(ladder: Ladder, knob: Knob) -> Ladder:
    """The ladder in the regime in which that knob is swept."""
    return replace(ladder, regime=_REGIMES.get(knob, ladder.regime))


def ask_drift(
    study: Study,
    ladder: Ladder,
    target: Rung,
    *,
    knob: Knob = "lr",
    mutate: Mutation = lambda p: p,
    flaw: str = "",
    finding: bool = False,
) -> Answer[Drift]:
    """Drift of the optimal ``knob`` from the ladder's reference to ``target`` under the study's rule.

    PASS is expected, and RESIDUAL is enough where the law is published as approximate. ``mutate`` changes the
    target's prescription and ``flaw`` its training: a mistake made on purpose. Nothing is expected of a ``finding``.
    """
    ladder = sweep_ladder(ladder, knob)
    arms = [study.arm(ladder, rung, knob=knob) for rung in (ladder.reference, target)]
    arms[1] = replace(arms[1], prescription=mutate(arms[1].prescription), flaw=flaw)
    rule = arms[1].prescription.rule
    name = study.name(ladder.name, target.label, *([knob] if knob != "lr" else []), rule=rule)
    residual = _weight_decay_residual(arms[1]) if knob == "weight_decay" else _residual(target, arms[1])
    expected = None if finding else Verdict.RESIDUAL if residual else Verdict.PASS
    return _ask(study, name, ladder, target, arms, expected, residual=residual)


def _residual(target: Rung, arm: Arm) -> float:
    """The target's residual, for a rule that has the published law: a rate that follows the duration by 1/sqrt(k)."""
    follows = math.isclose(arm.prescription[Role.TOKEN_EMBEDDING].lr, target.steps**-0.5)
    return target.residual if follows else 0.0


def _weight_decay_residual(arm: Arm) -> float:
    """Octaves of base decay between the two published forms, seen from the one that the arm has.

    Across width hidden decay is left alone (arXiv 2605.23893) or multiplied by rho_d (arXiv 2505.01618, 2512.22382):
    the optimum may lie anywhere between the two.
    """
    models = (arm.prescription.reference.model, arm.prescription.target.model)
    octaves = math.log2(models[1].width / models[0].width)
    if arm.prescription[Role.ATTENTION_QKV].lr >= 1:
        return 0.0  # no rate that falls with width, so neither form
    compensated = arm.prescription[Role.ATTENTION_QKV].weight_decay > 1
    return -octaves if compensated else octaves


def ask_null_control(study: Study, ladder: Ladder, seeds: tuple[int, int] = (0, NULL_SEED)) -> Answer[Drift]:
    """The ladder's reference against itself with other seeds: PASS expected, at the tier's own tolerance.

    ``seeds`` are the first of each side.
    """
    study = replace(study, tolerance=study.tier.tolerance)
    arm = study.arm(ladder, ladder.reference)
    pair = [] if seeds == (0, NULL_SEED) else [f"{seeds[0]}-{seeds[1]}"]
    name = study.name("control-null", ladder.name, ladder.reference.label, *pair)
    arms = [replace(arm, first_seed=seed) for seed in seeds]
    return _ask(study, name, ladder, ladder.reference, arms, Verdict.PASS, axis="control")


def ask_positive_control(study: Study, ladder: Ladder, target: Rung) -> Answer[Drift]:
    """The study's rule is one that is known to drift on this ladder: FAIL expected, at the tier's own tolerance.

    A user's wider tolerance says what is harmless, not what the suite must be able to see. A drift not far beyond
    the tolerance takes more seeds than one within it.
    """
    tier = replace(study.tier, max_seeds=max(CONTROL_SEEDS, study.tier.max_seeds))
    study = replace(study, tier=tier, tolerance=tier.tolerance)
    arms = [study.arm(ladder, rung) for rung in (ladder.reference, target)]
    name = study.name("control", ladder.name, target.label)
    return _ask(study, name, ladder, target, arms, Verdict.FAIL, axis="control")


def _ask(
    study: Study,
    name: str,
    ladder: Ladder,
    target: Rung,
    arms: list[Arm],
    expected: Verdict | None,
    *,
    axis: str | None = None,
    residual: float = 0.0,
) -> Answer[Drift]:
    searches = [LossSearch(arm, study.store) for arm in arms]
    task, knob = study.task(ladder), arms[0].knob
    best = searches[0].follow(searches[0].locate(task.log2_start(knob)))
    centers = [best, searches[1].follow(best)]
    replicates = study.tier.seeds
    while True:
        ours, theirs = (search.refine(center, replicates) for search, center in zip(searches, centers, strict=True))
        drift = judge_drift(ours, theirs, study.tolerance, residual)
        if drift.settled(task.half_width) or replicates >= study.tier.max_seeds:
            break
        replicates += 1
    rungs = (ladder.reference, target)
    sides = tuple(side_of(rung, s.arm, s.cells) for rung, s in zip(rungs, searches, strict=True))
    comparison = study.save(
        "drift",
        name,
        ladder,
        study.tolerance,
        sides,
        expected,
        axis=axis,
        rule=arms[1].prescription.rule,
        knob=knob,
        residual=residual,
    )
    return Answer(comparison=comparison, result=drift, verdict=drift.verdict, measured=str(drift))
