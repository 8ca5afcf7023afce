"""Ask how a mixture routes after a short training: load, weight sum, variance factor."""

from mue_check.axes import Ladder, Rung
from mue_check.errors import SpecError
from mue_check.execute import ensure
from mue_check.judge.load import CLAIM_TOLERANCE, RoutingLoad, judge_load
from mue_check.judge.verdict import Verdict
from mue_check.questions.answer import Answer
from mue_check.questions.stored import side_table
from mue_check.questions.study import Study, side_of
from mue_check.spec import Experts


def ask_load(study: Study, ladder: Ladder, rung: Rung) -> Answer[RoutingLoad]:
    """The routing of one rung at the task's base values.

    Where the router claims what its weights sum to, PASS is expected of that claim; the rest is a finding.
    """
    experts = rung.model.feed_forward
    if not isinstance(experts, Experts):
        raise SpecError(f"{rung.label} of {ladder.name} is dense and routes nothing")
    arm = study.arm(ladder, rung)
    cell = arm.cell("routing", [arm.base.lr], range(study.tier.seeds))
    ensure([cell], study.store)
    side = side_of(rung, arm, [cell.key])
    result = judge_load(side_table(study.store, side), experts.claimed_sum)
    name = study.name("routing", ladder.name, rung.label)
    expected = Verdict.PASS if result.verdict else None
    comparison = study.save("routing", name, ladder, CLAIM_TOLERANCE, (side,), expected, weight_sum=experts.claimed_sum)
    return Answer(comparison=comparison, result=result, verdict=result.verdict, measured=str(result))
