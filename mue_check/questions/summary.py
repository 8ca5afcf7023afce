"""A study judged from its records: what was asked, what every kind of question found, and the verdict of it all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mue_check.judge.verdict import Verdict, meets
from mue_check.questions.question import F, Finding, Findings, QuestionKind
from mue_check.records import Environment
from mue_check.study.asked import Asked, Unanswered, unanswered
from mue_check.study.comparison import Comparison
from mue_check.study.costs import Costs


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A study judged from its records: what was asked, what every kind of question found, and what the cells cost."""

    name: str
    axes: tuple[str, ...]
    """All axes in the order of the report."""
    asked: tuple[Asked, ...]
    comparisons: tuple[Comparison, ...]
    """The answers that are stored."""
    answers: tuple[tuple[QuestionKind, tuple[Finding, ...]], ...]
    costs: Costs
    environments: Mapping[Environment | None, int]
    """Where the cells were measured, and how many; None where that was not stored."""
    findings: Findings = field(repr=False)
    unfinished: tuple[str, ...]
    """The runs that did not finish."""

    def of(self, kind: type[F]) -> tuple[F, ...]:
        """The findings of one type."""
        return self.findings.of(kind)

    @property
    def own_axes(self) -> frozenset[str]:
        """Axes that a kind of question reports in a separate section."""
        return frozenset(axis for kind, _ in self.answers for axis in kind.axes)

    @property
    def verdicts(self) -> Mapping[str, tuple[tuple[Verdict, str], ...]]:
        """(verdict, expected) of every question with an expected verdict, by label; controls under "control"."""
        counted: dict[str, list[tuple[Verdict, str]]] = {kind.label: [] for kind, _ in self.answers}
        controls: list[tuple[Verdict, str]] = []
        for kind, found in self.answers:
            for c, verdict in ((each.comparison, verdict) for each in found for verdict in each.verdicts):
                if c.is_control:
                    controls.append((verdict, c.expected))
                elif c.expected:
                    counted[kind.label].append((verdict, c.expected))
        return {label: tuple(pairs) for label, pairs in (*counted.items(), ("control", controls)) if pairs}

    @property
    def questions(self) -> Sequence[Comparison]:
        """Every question, answered or not, in the order of the report."""
        answered = {c.name for c in self.comparisons}
        return (*self.comparisons, *(a.question for a in self.asked if a.question.name not in answered))

    @property
    def unanswered(self) -> tuple[Unanswered, ...]:
        """The questions that were asked and have no answer."""
        return tuple(unanswered(self.asked, self.comparisons))

    @property
    def unlisted(self) -> tuple[Comparison, ...]:
        """The answers to questions that are not in the list of questions, as in studies of version 0.3."""
        names = {each.question.name for each in self.asked}
        return tuple(c for c in self.comparisons if c.name not in names)

    @property
    def last_run(self) -> str:
        """The last run that asked anything; empty if that is not known."""
        return max((each.run for each in self.asked), default="")

    def of_run(self, run: str) -> "Summary":
        """The part of the study that this run asked: the questions that no later run has asked again."""
        asked = tuple(each for each in self.asked if each.run == run)
        names = {each.question.name for each in asked}
        answers = tuple((kind, tuple(f for f in found if f.comparison.name in names)) for kind, found in self.answers)
        return replace(
            self,
            asked=asked,
            comparisons=tuple(c for c in self.comparisons if c.name in names),
            answers=answers,
            findings=Findings(tuple(finding for _, found in answers for finding in found)),
            unfinished=(),
        )

    @property
    def verdict(self) -> Verdict:
        """FAIL when any question is answered against its expected verdict.

        Else INCONCLUSIVE when any is open, unanswered or unlisted, when a run did not finish, and when nothing is
        judged at all.
        """
        pairs = [pair for pairs in self.verdicts.values() for pair in pairs]
        if any(verdict is not Verdict.INCONCLUSIVE and not meets(verdict, expected) for verdict, expected in pairs):
            return Verdict.FAIL
        judged = {finding.comparison.name for _, found in self.answers for finding in found if finding.verdicts}
        is_open = any(verdict is Verdict.INCONCLUSIVE for verdict, _ in pairs) or any(
            c.expected and c.name not in judged for c in self.comparisons
        )
        is_open = is_open or bool(self.unanswered or self.unlisted or self.unfinished) or not pairs
        return Verdict.INCONCLUSIVE if is_open else Verdict.PASS

    @property
    def as_expected(self) -> bool:
        """Whether every question has its expected verdict; one that is open has not."""
        return self.verdict is Verdict.PASS
