"""Drift: how far the optimum moves between two rungs. Search both optima, judge, and add seeds while it is open."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mue_check.axes import Ladder, Regime, Rung
from mue_check.judge.drift import Drift, judge_drift
from mue_check.judge.optimum import Curve
from mue_check.judge.verdict import Verdict
from mue_check.questions.display import in_unit_of, knob_name
from mue_check.questions.question import Finding
from mue_check.questions.summary import Summary
from mue_check.records import Store
from mue_check.rules import Knob, Prescription, Role, get_rule
from mue_check.rules.knob import is_judged_whole
from mue_check.rules.predicted import predicted_drift
from mue_check.rules.roles import INPUTS
from mue_check.study.arm import AnyArm, Arm
from mue_check.study.comparison import Comparison, with_looks_note
from mue_check.study.folder import AxisPoint, Folder, Study, side_of
from mue_check.study.search import Grid, LossSearch, curves_by_look, grid_of, read_curve
from mue_check.tiers import Task

_REGIMES: Mapping[Knob, Regime] = {"weight_decay": "noise"}
"""The regime in which a knob other than the learning rate has a sharp optimum: weight decay helps where there is
noise to average (docs/choices.md)."""

RIGHT = get_rule("complete_mue")
"""The rule that predictions take for right."""
Mutation = Callable[[Prescription], Prescription]


@dataclass(frozen=True, kw_only=True)
class DriftFinding(Finding):
    """One drift with both loss curves."""

    reference: Curve
    target: Curve
    drift: Drift
    verdict: Verdict

    @property
    def is_lr_drift(self) -> bool:
        """Whether it is about the learning rate, and not a control."""
        return self.comparison.knob == "lr" and not self.comparison.is_control


def main_drifts(summary: Summary) -> list[DriftFinding]:
    """The drifts of the main table: no controls, and none of an axis with a separate section."""
    found = summary.of(DriftFinding)
    return [d for d in found if not d.comparison.is_control and d.comparison.axis not in summary.own_axes]


def judge_stored_drift(store: Store, comparison: Comparison) -> DriftFinding:
    """Judge a drift from its stored loss curves."""
    reference, target = (read_curve(store, side.cells, first_seed=side.first_seed) for side in comparison.sides)
    drift = judge_drift(
        reference,
        target,
        comparison.tolerance,
        comparison.residual,
        comparison.looks,
        whole=is_judged_whole(comparison.knob),
    )
    return DriftFinding(
        comparison=comparison,
        verdict=drift.verdict,
        measured=with_looks_note(in_unit_of([comparison], drift.text(knob_name(comparison.knob))), comparison),
        reference=reference,
        target=target,
        drift=drift,
    )


def ask_drift(
    study: Study,
    ladder: Ladder,
    target: Rung,
    *,
    knob: Knob = "lr",
    mutate: Mutation = lambda p: p,
    flaw: str = "",
    finding: bool = False,
) -> DriftFinding:
    """Drift of the optimal ``knob`` from the ladder's reference to ``target`` under the study's rule.

    PASS is expected; where the law is published as approximate, RESIDUAL is enough. ``mutate`` changes prescriptions
    and ``flaw`` the target's training: a mistake made on purpose. Nothing is expected of a ``finding``.
    """
    ladder = sweep_ladder(ladder, knob)
    arms = drift_arms(study, ladder, target, knob, mutate)
    arms[1] = replace(arms[1], flaw=flaw)
    rule = arms[1].prescription.rule
    name = study.name(ladder.name, target.label, *knob_in_name(knob), rule=rule)
    residual = _weight_decay_residual(arms[1]) if knob == "weight_decay" else _residual(target, arms[1])
    expected = None if finding else Verdict.RESIDUAL if residual else Verdict.PASS
    return measure_drift(study, name, ladder, target, arms, expected, residual=residual)


def knob_in_name(knob: Knob) -> list[str]:
    """The knob as a part of a question's name; left out for the learning rate."""
    return [] if knob == "lr" else [knob.replace(":", "-")]


def drift_arms(study: Study, ladder: Ladder, target: Rung, knob: Knob, mutate: Mutation = lambda p: p) -> list[Arm]:
    """The arms of the reference and of a target; a mistake is made in both."""
    rungs = (ladder.reference, target)
    return [study.arm(ladder, rung, mutate(study.prescription(ladder, rung)), knob=knob) for rung in rungs]


def predicted_for(study: Study, ladder: Ladder, target: Rung, arms: Sequence[Arm]) -> float | None:
    """The drift in octaves that the mistakes of these arms should cause; None where none is predicted."""
    right = drift_arms(study.with_rule(RIGHT), ladder, target, arms[0].knob)
    pairs = [(r.prescription, arm.prescription) for r, arm in zip(right, arms, strict=True)]
    return predicted_drift(arms[0].knob, *pairs)


def sweep_ladder(ladder: Ladder, knob: Knob) -> Ladder:
    """The ladder in the regime in which that knob is swept."""
    return replace(ladder, regime=_REGIMES.get(knob, ladder.regime))


def _residual(target: Rung, arm: Arm) -> float:
    """The target's residual under a rule that has the published law: a rate that falls by 1/sqrt(k)."""
    rates = [factors.lr for role, factors in arm.prescription.factors.items() if role in INPUTS]
    follows = all(math.isclose(rate, target.steps**-0.5) for rate in rates)
    return target.residual if follows else 0.0


def _weight_decay_residual(arm: Arm) -> float:
    """Octaves of base decay from the published form that the arm has to the other one.

    Across width, hidden decay is left alone (arXiv 2605.23893) or multiplied by rho_d (arXiv 2505.01618, 2512.22382):
    the optimum may lie anywhere between the two.
    """
    models = (arm.prescription.reference.model, arm.prescription.target.model)
    octaves = math.log2(models[1].width / models[0].width)
    if arm.prescription[Role.ATTENTION_QKV].lr >= 1:
        return 0.0  # the rate does not fall with width, so neither form applies
    compensated = arm.prescription[Role.ATTENTION_QKV].weight_decay > 1
    return -octaves if compensated else octaves


def measure_drift(
    study: Study,
    name: str,
    ladder: Ladder,
    target: Rung,
    arms: Sequence[Arm],
    expected: Verdict | None,
    *,
    axis: str | None = None,
    residual: float = 0.0,
) -> DriftFinding:
    """Measure two arms with more and more seeds until the drift between their optima is settled, and save it."""
    task, knob, rule, looks = study.task(ladder), arms[0].knob, arms[1].prescription.rule, study.tier.looks
    question = study.question("drift", name, ladder, study.tolerance, expected, axis=axis, rule=rule, looks=looks)
    predicted = predicted_for(study, ladder, target, arms)
    question = replace(question, knob=knob, residual=residual, predicted=predicted)
    rungs = (ladder.reference, target)
    grid = grid_of(knob, task.grid_step, task.grid_reach)
    return answer_drift(study, question, rungs, arms, task.log2_start(knob), task.half_width, grid)


def answer_drift(
    study: Folder,
    question: Comparison,
    rungs: Sequence[AxisPoint],
    arms: Sequence[AnyArm],
    log2_start: float,
    half_width: float,
    grid: Grid | None = None,
) -> DriftFinding:
    """Measure two arms at its looks until the drift is settled, and save the answer. The search begins at
    ``log2_start``."""
    with study.asking(question):
        grid = grid or grid_of(arms[0].knob, Task.grid_step)
        searches = [LossSearch(arm, study.store, grid) for arm in arms]
        for _ in curves_by_look(searches, log2_start, question.looks):
            sides = tuple(side_of(rung, s.arm, s.cells) for rung, s in zip(rungs, searches, strict=True))
            found = judge_stored_drift(study.store, replace(question, sides=sides))
            if found.drift.settled(half_width):
                break
        study.save(found.comparison)
    return found
