"""Values: whether the values that a rule prescribes arrive at the optimizer of a rung. Stores no comparison."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from mue_check.axes import Ladder, Rung
from mue_check.judge.audit import Audit, judge_audit
from mue_check.questions.arm import measure
from mue_check.questions.case import any_target_cases
from mue_check.questions.comparison import Comparison
from mue_check.questions.drift import Mutation
from mue_check.questions.question import Finding, Findings, QuestionKind
from mue_check.questions.study import Study
from mue_check.records import Store


def audit_rung(study: Study, ladder: Ladder, rung: Rung, mutate: Mutation = lambda p: p, *, flaw: str = "") -> Audit:
    """The stack of a rung, built from a (mutated) prescription, against the prescription of the study's rule."""
    arm = study.arm(ladder, rung)
    train = replace(arm.train, warmup=0, final_lr=1.0)
    mutant = replace(arm, prescription=mutate(arm.prescription), train=train, flaw=flaw)
    cell = mutant.cell("optimizer", [arm.base.lr], [0])
    measure([cell], study.store)
    return judge_audit(study.store.rows(cell.key), arm.prescription.values(arm.base))


class ValuesKind(QuestionKind):
    """The suite checks every target of every axis. It stores no comparison, so a report shows nothing."""

    label = "values"
    cases: ClassVar = {"any_case": any_target_cases}

    def find(self, store: Store, comparisons: Sequence[Comparison], known: Findings) -> tuple[Finding, ...]:
        """Nothing."""
        return ()
