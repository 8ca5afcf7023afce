"""Ask how much sooner a target reaches a loss than its reference, at the same hyperparameters."""

from dataclasses import replace

from mue_check.axes import Ladder, Rung
from mue_check.errors import MueCheckError
from mue_check.execute import ensure
from mue_check.judge.speedup import Speedup, compare_learning
from mue_check.questions.answer import Answer
from mue_check.questions.stored import side_table
from mue_check.questions.study import Study, side_of

LONGER = 2
"""Times the task's own steps: a speed-up shows late."""
LOOKS = 24


def ask_speed(study: Study, ladder: Ladder, target: Rung) -> Answer[Speedup]:
    """Steps to a held-out loss, reference over target, at the task's base values and a constant learning rate.

    A finding: no value is right. MueCheckError when the two share no loss, because one of them did not learn.
    """
    rungs = (ladder.reference, target)
    sides = []
    for rung in rungs:
        arm = study.arm(ladder, rung)
        train = replace(arm.train, steps=LONGER * arm.train.steps, final_lr=1.0)
        arm = replace(arm, train=train)
        # geometric, as the speed-up is a ratio of steps
        looks = sorted({max(1, round(train.steps ** (i / LOOKS))) for i in range(LOOKS // 3, LOOKS + 1)})
        cell = arm.cell("learning_curve", [arm.base.lr], range(study.tier.seeds), looks)
        ensure([cell], study.store)
        sides.append(side_of(rung, arm, [cell.key]))
    result = compare_learning(*(side_table(study.store, side) for side in sides))
    if not result.overall.n:
        raise MueCheckError(f"{ladder.name}: {rungs[0].label} and {target.label} reach no common loss")
    name = study.name(ladder.name, target.label)
    comparison = study.save("speedup", name, ladder, 0.0, tuple(sides), None)
    return Answer(comparison=comparison, result=result, verdict=None, measured=str(result))
