"""The sigma_0 laboratory's questions: gamma, the shift of sigma_0, the drift that goes with it, and its forecast."""

from dataclasses import replace

from mue_check.axes import Ladder, Rung
from mue_check.execute import ensure
from mue_check.judge.drift import Drift
from mue_check.judge.verdict import Verdict
from mue_check.questions.answer import Answer
from mue_check.questions.arm import Arm
from mue_check.questions.comparison import Side
from mue_check.questions.drift import ask_drift
from mue_check.questions.stored import judge_stored_gammas, judge_stored_shift
from mue_check.questions.study import Study, side_of
from mue_check.records import Cell
from mue_check.sigma0.calibration import Calibration
from mue_check.sigma0.forecast import Forecasted, judge_forecast
from mue_check.sigma0.gammas import TOLERANCE, Gammas
from mue_check.sigma0.ladders import LEARNED_LOADS
from mue_check.sigma0.shift import Sigma0Shift
from mue_check.spec import Experts

HALF_WIDTH = 0.05
"""Of gamma of up and down of every layer, where seeds are added."""


def ask_gamma(study: Study, ladder: Ladder, *, switched: bool = False) -> Answer[Gammas]:
    """Gamma of one mixture's experts over the loads of its ladder. A finding, except for the control.

    ``switched``: the weights are those of the first load, and the loads change only where the noise is looked at, so
    that experts differ in nothing but their tokens. Content-blind routing must then give the theory's 1/2. Where the
    load is steered seeds are added, up to the tier's cap, until up and down of every layer are known to HALF_WIDTH.
    """
    rungs = ladder.targets[:1] if switched else ladder.targets
    loads = tuple(rung.load for rung in ladder.targets) if switched else ()
    control = switched and _experts(rungs[0]).router == "content_blind"
    name = study.name("gamma", ladder.name, *(["switched"] if switched else []))
    seeds = study.tier.noise_seeds
    while True:
        sides = tuple(_noise_side(study, ladder, rung, loads, seeds=seeds) for rung in rungs)
        comparison = study.save(
            "gamma",
            name,
            ladder,
            TOLERANCE,
            sides,
            Verdict.PASS if control else None,
            axis="control" if control else None,
        )
        gammas = judge_stored_gammas(study.store, comparison)
        more = seeds + study.tier.noise_seeds
        settled = switched or ladder.steered_router is None or gammas.known_to(HALF_WIDTH)
        if settled or more > study.tier.max_noise_seeds:
            break
        seeds = more
    return Answer(
        comparison=comparison, result=gammas, verdict=gammas.verdict if control else None, measured=str(gammas)
    )


def ask_shift(study: Study, ladder: Ladder, target: Rung) -> Answer[Sigma0Shift]:
    """The shift of log2 sigma_0 from the ladder's reference to ``target``, at one learning rate.

    Of another load it is bounded: it lies between none and the theory's, within the tolerance. Elsewhere a finding.
    """
    rungs = (ladder.reference, target)
    sides = tuple(_noise_side(study, ladder, rung) for rung in rungs)
    law = ladder.name in LEARNED_LOADS
    expected = Verdict.RESIDUAL if law else None
    name = study.name("sigma0", ladder.name, target.label)
    comparison = study.save("sigma0", name, ladder, study.tolerance, sides, expected)
    shift = judge_stored_shift(study.store, comparison)
    verdict = shift.judge(study.tolerance) if law else None
    return Answer(comparison=comparison, result=shift, verdict=verdict, measured=str(shift))


def noise_cells(study: Study, arm: Arm, loads: tuple[str, ...] = (), *, seeds: int = 0) -> list[Cell]:
    """The gradient noise of an arm at its task's base values, half way and at the end; under other loads at the end.

    Of the tier's ``noise_seeds``, or more of them: a cell for each so many.
    """
    steps = (arm.train.steps,) if loads else (arm.train.steps // 2, arm.train.steps)
    chunk = study.tier.noise_seeds
    return [
        arm.cell("gradient_noise", [arm.base.lr], range(first, first + chunk), steps, loads)
        for first in range(0, max(seeds, chunk), chunk)
    ]


def _noise_side(study: Study, ladder: Ladder, rung: Rung, loads: tuple[str, ...] = (), *, seeds: int = 0) -> Side:
    arm = study.arm(ladder, rung)
    cells = noise_cells(study, arm, loads, seeds=seeds)
    ensure(cells, study.store)
    return side_of(rung, arm, [cell.key for cell in cells])


def _experts(rung: Rung) -> Experts:
    assert isinstance(rung.model.feed_forward, Experts)
    return rung.model.feed_forward


def ask_sigma0_drift(study: Study, ladder: Ladder, target: Rung) -> Answer[Drift]:
    """The drift of the optimum to a target, with as many seeds as a fit needs; nothing is expected of it."""
    seeds = study.tier.sigma0_seeds
    study = replace(study, tier=replace(study.tier, seeds=seeds, max_seeds=seeds))
    return ask_drift(study, ladder, target, finding=True)


def ask_forecast(study: Study, ladder: Ladder, target: Rung, calibration: Calibration) -> Answer[Forecasted]:
    """Does the budget of a load that no fit has seen hold?"""
    answer = ask_sigma0_drift(study, ladder, target)
    result = judge_forecast(answer.result, _experts(target), calibration)
    comparison = study.save(
        "forecast",
        study.name("forecast", ladder.name, target.label),
        ladder,
        study.tolerance,
        answer.comparison.sides,
        Verdict.PASS,
    )
    return Answer(comparison=comparison, result=result, verdict=result.verdict, measured=str(result))
