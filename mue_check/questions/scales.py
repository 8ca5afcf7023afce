"""Ask for scales along a ladder, and for the early loss curves of two rungs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from mue_check.axes import Ladder, Rung
from mue_check.execute import ensure
from mue_check.judge.early import TREND_TOLERANCE, EarlyComparison, compare_early
from mue_check.judge.law import LawResult
from mue_check.judge.laws import COORDINATE_STEPS
from mue_check.judge.verdict import Verdict, join
from mue_check.questions.answer import Answer
from mue_check.questions.arm import Arm
from mue_check.questions.comparison import Side
from mue_check.questions.stored import judge_coordinates, law_rungs, side_table
from mue_check.questions.study import Study, side_of
from mue_check.routing.variants import get_variant
from mue_check.rules import Prescription
from mue_check.spec import Experts

COORDINATE_SEEDS = (12, 24, 48)
"""Replicates; the larger numbers where the smaller leave the answer open."""
COORDINATE_INIT_STD, COORDINATE_LR = 0.05, 2.0**-8
"""Small init, so that what is learned outweighs what was drawn; small LR, so that 5 steps stay in one regime
(docs/choices.md)."""
EARLY_STEPS = 100

Mutation = Callable[[Prescription], Prescription]


def ask_coordinates(
    study: Study, ladder: Ladder, mutate: Mutation = lambda p: p, *, flaw: str = "", finding: bool = False
) -> Answer[list[LawResult]]:
    """Judge the laws of ``ladder`` on all its rungs.

    ``mutate`` changes the targets' prescriptions and ``flaw`` their training: a mistake made on purpose, named
    by the mutated prescription's ``rule``. Nothing is expected of a ``finding``.
    """
    width = ladder.reference.model.width / 32  # the values above were chosen at d = 32
    arms = []
    for rung in ladder.rungs:
        arm = study.arm(ladder, rung)
        if rung is not ladder.reference:
            arm = replace(arm, prescription=mutate(arm.prescription), flaw=flaw)
        base = replace(arm.base, lr=COORDINATE_LR / width, init_std=COORDINATE_INIT_STD / width**0.5)
        train = replace(arm.train, steps=COORDINATE_STEPS[-1], warmup=0, final_lr=1.0)
        arms.append(replace(arm, base=base, train=train))
    for sides in _rounds(study, "coordinates", ladder.rungs, arms, COORDINATE_SEEDS, COORDINATE_STEPS):
        results = judge_coordinates(ladder.name, law_rungs(study.store, sides))
        verdict = join(result.verdict for result in results)
        if verdict is not Verdict.INCONCLUSIVE:
            break
    rule, tolerance = arms[-1].prescription.rule, results[0].law.tolerance
    name = study.name("coordinates", ladder.name, rule=rule)
    expected = None if finding or not _is_prescribed(ladder) else Verdict.PASS
    return Answer(
        comparison=study.save("coordinates", name, ladder, tolerance, sides, expected, rule=rule),
        result=results,
        verdict=verdict,
        measured="\n".join(map(str, sorted(results, key=lambda result: result.verdict is Verdict.PASS))),
    )


def _is_prescribed(ladder: Ladder) -> bool:
    """Whether the rule speaks of this routing at all: weights of a known sum, from scores that learn.

    A router that claims no sum is not broken; what it does to the scales is a finding.
    """
    mixtures = [rung.model.feed_forward for rung in ladder.rungs if isinstance(rung.model.feed_forward, Experts)]
    return all(e.weight_sum is not None and get_variant(e.router).scored for e in mixtures)


def ask_early_curve(study: Study, ladder: Ladder, target: Rung) -> Answer[EarlyComparison]:
    """Compare the first steps of a rung with the reference's, both at the corpus's base learning rate."""
    rungs = (ladder.reference, target)
    arms = [study.arm(ladder, rung) for rung in rungs]
    steps = (min(EARLY_STEPS, arms[0].train.steps),)
    for sides in _rounds(study, "early_curve", rungs, arms, (study.tier.seeds, study.tier.max_seeds), steps):
        result = compare_early(*(side_table(study.store, side) for side in sides))
        if result.verdict is not Verdict.INCONCLUSIVE:
            break
    name = study.name("early", ladder.name, target.label)
    return Answer(
        comparison=study.save("early_curve", name, ladder, TREND_TOLERANCE, sides, Verdict.PASS),
        result=result,
        verdict=result.verdict,
        measured=str(result),
    )


def _rounds(
    study: Study,
    measurement: str,
    rungs: Sequence[Rung],
    arms: Sequence[Arm],
    replicates: Sequence[int],
    steps: tuple[int, ...],
) -> Iterator[tuple[Side, ...]]:
    """The measured sides, with ever more replicates: the caller stops when it has seen enough."""
    keys: list[list[str]] = [[] for _ in arms]
    first = 0
    for last in replicates:
        cells = [arm.cell(measurement, [arm.base.lr], range(first, last), steps) for arm in arms]
        ensure(cells, study.store)
        for known, cell in zip(keys, cells, strict=True):
            known.append(cell.key)
        yield tuple(side_of(rung, arm, known) for rung, arm, known in zip(rungs, arms, keys, strict=True))
        first = last
