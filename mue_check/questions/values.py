"""Values: whether the values that a rule prescribes arrive at the optimizer of a rung."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from mue_check.axes import Ladder, Rung
from mue_check.judge.audit import Audit, judge_audit
from mue_check.judge.verdict import Verdict
from mue_check.questions.case import any_target_cases
from mue_check.questions.display import merged, question_columns
from mue_check.questions.drift import Mutation
from mue_check.questions.question import Finding, JudgedKind
from mue_check.questions.summary import Summary
from mue_check.records import Store
from mue_check.report.section import Fold, Part, Section
from mue_check.report.table import Cells, make_table
from mue_check.study.comparison import Comparison, side_table
from mue_check.study.folder import Study


@dataclass(frozen=True, kw_only=True)
class ValuesFinding(Finding):
    """The values that the optimizer of one rung applies, against those that the rule prescribes."""

    audit: Audit
    verdict: Verdict


def ask_values(
    study: Study, ladder: Ladder, rung: Rung, mutate: Mutation = lambda p: p, *, flaw: str = "", finding: bool = False
) -> ValuesFinding:
    """The stack of a rung, built from a (mutated) prescription, against the prescription of the study's rule.

    PASS is expected, and nothing of a ``finding``. The prescribed values are stored with the question.
    """
    arm = study.arm(ladder, rung)
    train = replace(arm.train, warmup=0, final_lr=1.0)
    mutant = replace(arm, prescription=mutate(arm.prescription), train=train, flaw=flaw)
    rule = mutant.prescription.rule
    name = study.name("values", ladder.name, rung.label, rule=rule)
    question = study.question("values", name, ladder, 0.0, None if finding else Verdict.PASS, rule=rule)
    question = replace(question, prescribed=tuple(arm.prescription.values(arm.base)))
    return VALUES.answer(study, question, [rung], [mutant], replicates=1)


class ValuesKind(JudgedKind[ValuesFinding]):
    """Every target of every axis: weight decay, eps and betas too, which activations cannot show."""

    kind = "values"
    measurement = "optimizer"
    label = "values"
    cases: ClassVar = {"any_case": any_target_cases}

    def judge(self, store: Store, comparison: Comparison) -> ValuesFinding:
        """Compare what was measured with what was prescribed."""
        (side,) = comparison.sides
        audit = judge_audit(side_table(store, side), comparison.prescribed)
        return ValuesFinding(comparison=comparison, verdict=audit.verdict, measured=str(audit), audit=audit)

    def sections(self, summary: Summary) -> Iterator[Section]:
        """The rungs whose values are not as prescribed; a fold of all."""
        found = merged(summary.of(ValuesFinding))
        if not found:
            return
        columns: Cells[ValuesFinding] = {
            **question_columns(found),
            "parameters": lambda v: str(v.audit.parameters),
            "values not as prescribed": lambda v: str(len(v.audit.offences)),
            "verdict": lambda v: v.verdict.value,
        }

        def note(finding: ValuesFinding) -> str:
            return finding.measured if finding.audit.offences else ""

        numeric = ("parameters", "values not as prescribed")
        wrong = [each for each in found if each.verdict is not Verdict.PASS]
        caption = "Values at the optimizer"
        yield Section(
            part=Part.DETAILS,
            anchor="values",
            title=caption,
            text="Init std, learning rate, weight decay, eps and betas of every parameter, by probing the optimizer.",
            tables=(make_table(caption, wrong, columns, numeric=numeric, note=note),) if wrong else (),
            folds=(
                Fold(
                    title=f"{caption}: {len(found) - len(wrong)} of {len(found)} as prescribed",
                    tables=(make_table(caption, found, columns, numeric=numeric),),
                    brief=True,
                ),
            ),
        )


VALUES = ValuesKind()
