"""Ask whether the values that a rule prescribes arrive at the optimizer of a rung."""

from dataclasses import replace

from mue_check.axes import Ladder, Rung
from mue_check.execute import ensure
from mue_check.judge.audit import Audit, judge_audit
from mue_check.questions.scales import Mutation
from mue_check.questions.study import Study


def audit_rung(study: Study, ladder: Ladder, rung: Rung, mutate: Mutation = lambda p: p, *, flaw: str = "") -> Audit:
    """The stack of a rung, built from a (mutated) prescription, against the prescription of the study's rule."""
    arm = study.arm(ladder, rung)
    train = replace(arm.train, warmup=0, final_lr=1.0)
    cell = replace(arm, prescription=mutate(arm.prescription), train=train, flaw=flaw).cell(
        "optimizer", [arm.base.lr], [0]
    )
    ensure([cell], study.store)
    return judge_audit(study.store.rows(cell.key), arm.prescription.values(arm.base))
